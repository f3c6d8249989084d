"""The page as a whole: header, tabs, signals, and what follows the look. Knows no tab's inside."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui import annotate, compare, evaluate, header, models, train
from glmstudio.ui.caller import called_by, calling, person_named
from glmstudio.ui.error_boundary import ErrorBoundary
from glmstudio.ui.language import label
from glmstudio.ui.live import Live
from glmstudio.ui.page import QUIET, Page, signal_field

if TYPE_CHECKING:
    from glmstudio.studio import Studio


# Seconds between two looks at the files that browsers sent and fetched, and how old one may get.
_KEPT = (3600, 86_400)
TABS = {"annotate": annotate, "train": train, "compare": compare, "evaluate": evaluate, "models": models}


class App(ErrorBoundary):
    """The page; `live` are its parts that follow the look. Each event is its sender's."""

    live: Live

    async def process_api(self, *arguments: Any, request: Any = None, **named: Any) -> dict[str, Any]:
        with called_by(person_named(request.username)):
            return await super().process_api(*arguments, request=request, **named)


def build_app(studio: "Studio") -> App:
    """The page over one Studio, which it calls as whoever sends a request. Launch it with `serve.launch`, which gives
    it colours, words and icon."""
    studio = studio.as_(calling)
    # What a person sees first is made by the program itself.
    with (
        called_by(person_named(None)),
        App(
            title="GLM Studio", analytics_enabled=False, fill_width=True, elem_id="studio", delete_cache=_KEPT
        ) as blocks,
    ):
        live = blocks.live = Live(studio)
        signals = [signal_field(), *(signal_field() for _ in range(4))]
        header.place(live)
        with gr.Tabs(selected="annotate", elem_id="tabs") as tabs:
            page = Page(blocks, tabs, live, *signals)
            for name, module in TABS.items():
                with gr.Tab(label(f"tab.{name}"), id=name, elem_id=f"tab-{name}"):
                    module.build(studio, page)
        header.wire(studio, page)
        tabs.select(lambda change: change or gr.skip(), page.unseen_changes, page.refresh_datasets, **QUIET)
    return blocks
