"""A plotly chart that grows in place: zoom, hover and legend choices stay while points arrive. Knows no metrics.

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

    from glmstudio.ui.live import Feed, Live


def place(live: "Live", elem_id: str, tab: str, feed: "Feed") -> gr.HTML:
    """A chart where the layout stands, of what `feed` gives: `drawn`, what it grows by (`live_figure.js`) or `hint`,
    and None where the page has all of it. plotly's script is served from now on."""
    gr.set_static_paths([plotly_script()])
    live.feeds[elem_id] = tab, feed
    script = Path(__file__).with_name("live_figure.js").read_text(encoding="utf-8")
    return gr.HTML(
        "", elem_id=elem_id, apply_default_css=False, js_on_load=script,
        html_template='<div class="live-figure-plot"></div><p class="live-figure-hint empty-hint"></p>',
        head=f'<script src="gradio_api/file={quote(plotly_script().as_posix())}"></script>',
    )  # fmt: skip


def plotly_script() -> Path:
    """plotly.min.js of the installed plotly package, found without importing plotly."""
    found = importlib.util.find_spec("plotly")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


def drawn(figure: "Figure", words: Mapping[str, str]) -> dict[str, Any]:
    """The value that shows `figure`. `words`: plotly's own English texts → the page's, and `scale` (linear or log)."""
    return {"figure": json.loads(figure.to_json(remove_uids=False)), "words": dict(words)}


def hint(text: str) -> dict[str, Any]:
    """The value that shows a sentence instead of a chart."""
    return {"hint": text}
