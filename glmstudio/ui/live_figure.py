"""A plotly chart that is redrawn in place: zoom, hover and legend choices stay while points arrive. Knows no metrics.

Gradio's own plot component builds the chart anew at each value. Here `Plotly.react` runs in the browser, with the
plotly.min.js of the installed plotly package, so that it works offline; `layout.uirevision` keeps a zoom.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import gradio as gr

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class LiveFigure(gr.HTML):
    """Its value is what `drawn` or `hint` gives; text, grid and background follow the page's colours.

    Gradio makes the component anew from its own arguments at each update: so all of them pass through.
    """

    def __init__(self, value: str = "", **more: Any) -> None:
        given = {
            "html_template": '<div class="live-figure-plot"></div><p class="live-figure-hint empty-hint"></p>',
            "js_on_load": Path(__file__).with_name("live_figure.js").read_text(encoding="utf-8"),
            "head": f'<script src="gradio_api/file={quote(plotly_script().as_posix())}"></script>',
            "apply_default_css": False,
        }
        super().__init__(value, **{**given, **more})


def place(elem_id: str) -> LiveFigure:
    """A chart where the layout stands; plotly's script is served from now on."""
    gr.set_static_paths([plotly_script()])
    return LiveFigure(elem_id=elem_id)


def plotly_script() -> Path:
    """plotly.min.js of the installed plotly package, found without importing plotly."""
    found = importlib.util.find_spec("plotly")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


def drawn(figure: "Figure", words: Mapping[str, str]) -> str:
    """The value that shows `figure`. `words`: plotly's own English texts → the page's, and `scale` (linear or log)."""
    return json.dumps({"figure": json.loads(figure.to_json()), "words": dict(words)}, ensure_ascii=False)


def hint(text: str) -> str:
    """The value that shows a sentence instead of a chart."""
    return json.dumps({"hint": text}, ensure_ascii=False)
