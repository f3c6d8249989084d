"""The page as a whole: header, tabs, signals, and the timer above them. Knows no tab's inside."""

from typing import TYPE_CHECKING

import gradio as gr

from glmstudio.ui import annotate, compare, evaluate, header, models, train
from glmstudio.ui.error_boundary import ErrorBoundary
from glmstudio.ui.language import label
from glmstudio.ui.page import QUIET, Page, signal_field

if TYPE_CHECKING:
    from glmstudio.studio import Studio


# Seconds between two looks at the files that browsers sent and fetched, and how old one may get.
_KEPT = (3600, 86_400)
TABS = {"annotate": annotate, "train": train, "compare": compare, "evaluate": evaluate, "models": models}


def build_app(studio: "Studio") -> gr.Blocks:
    """The page over one Studio. Launch it with `serve.launch`, which gives it colours, words and icon."""
    with ErrorBoundary(
        title="GLM Studio", analytics_enabled=False, fill_width=True, elem_id="studio", delete_cache=_KEPT
    ) as blocks:
        timer = gr.Timer(1.0)
        signals = [signal_field(), *(signal_field() for _ in range(4))]
        header_slot = header.place()
        with gr.Tabs(selected="annotate", elem_id="tabs") as tabs:
            page = Page(blocks, tabs, timer, *signals)
            for name, module in TABS.items():
                with gr.Tab(label(f"tab.{name}"), id=name, elem_id=f"tab-{name}"):
                    module.build(studio, page)
        header.wire(header_slot, studio, page)
        tabs.select(lambda change: change or gr.skip(), page.unseen_changes, page.refresh_datasets, **QUIET)
    return blocks
