"""The Train tab: at the left what a run starts from, at the right how runs go. Layout and wiring only."""

from typing import TYPE_CHECKING

import gradio as gr

from glmstudio.ui.train_setup import Setup
from glmstudio.ui.train_view import View

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.page import Page


def build(studio: "Studio", page: "Page") -> None:
    """Called inside the tab."""
    with gr.Row(elem_id="train-columns", equal_height=True):
        with gr.Column(scale=34, min_width=320, elem_id="train-setup"):
            setup = Setup(studio)
        with gr.Column(scale=66, min_width=320, elem_id="train-view"):
            view = View(studio, page.live)
    setup.wire(page)
    view.wire(page)
