"""The Compare tab: a prompt, the base's and a run's answers side by side, a verdict. Layout and wiring only."""

from typing import TYPE_CHECKING

import gradio as gr

from glmstudio.data.example import SPLITS
from glmstudio.settings import GenerationSettings
from glmstudio.ui.adapter_choice import AdapterChoice
from glmstudio.ui.answers import VIEWS
from glmstudio.ui.choice import Choice
from glmstudio.ui.compare_answers import Answering
from glmstudio.ui.compare_prompt import Prompting
from glmstudio.ui.compare_verdict import Judging
from glmstudio.ui.forms import Form
from glmstudio.ui.language import label
from glmstudio.ui.page import LIVE, slot, stepper

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.page import Page


def build(studio: "Studio", page: "Page") -> None:
    """Called inside the tab."""
    Compare(studio).wire(page)


class Compare:
    """The components of the tab. What they do stands in three rooms: the prompt, the answers, the verdict."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        with gr.Column(elem_id="compare-page"):
            with gr.Row(elem_id="compare-ask", equal_height=True):
                with gr.Column(scale=60, min_width=320, elem_id="compare-prompt"):
                    self.instruction = _text("instruction", 2)
                    self.input = _text("input", 4)
                with gr.Column(scale=40, min_width=320, elem_id="compare-settings"):
                    self._place_settings()
            with gr.Row(elem_classes="glm-line", elem_id="compare-bar"):
                self.view = gr.Radio(
                    [(label(f"compare.view.{name}"), name) for name in VIEWS],
                    value=VIEWS[0],
                    label=label("compare.view"),
                    show_label=False,
                    container=False,
                    elem_id="compare-view",
                )
                self.message = slot("compare-message", LIVE)
            with gr.Row(elem_id="compare-panes", equal_height=True):
                self.base_head, self.base = _place_pane("base")
                self.tuned_head, self.tuned = _place_pane("tuned")
            self.expected = slot("compare-expected")
            self._place_verdict()

    def _place_settings(self) -> None:
        self.adapters = AdapterChoice(self._studio, "compare-run", elem_classes="glm-field")
        self.run = self.adapters.choice
        with gr.Row(elem_id="compare-form", elem_classes="settings-grid"):
            self.form = Form("compare", GenerationSettings())
            self.form.place("temperature", "max_new_tokens")
        with gr.Row(elem_classes="glm-line"):
            self.dataset = Choice(
                [], label=label("compare.dataset"), elem_id="compare-dataset", interactive=True, scale=3, min_width=120
            )
            self.earlier = stepper("earlier", "compare-earlier")
            self.take = gr.Button(label("compare.dev-row"), size="sm", elem_id="compare-dev-row", scale=2, min_width=90)
            self.later = stepper("later", "compare-later")
        with gr.Row(elem_classes="glm-line", elem_id="compare-actions"):
            self.generate = gr.Button(
                label("compare.generate"),
                variant="primary",
                size="sm",
                interactive=False,
                elem_id="compare-generate",
                elem_classes="glm-on-enter",
            )
            self.stop = gr.Button(label("compare.stop"), size="sm", interactive=False, elem_id="compare-stop")

    def _place_verdict(self) -> None:
        with gr.Row(elem_id="compare-verdict", elem_classes="glm-line"):
            self.correct = gr.Textbox(
                "",
                label=label("compare.correct"),
                placeholder=label("compare.correct-hint"),
                lines=2,
                max_lines=2,
                elem_id="compare-correct",
                elem_classes=["glm-mono", "glm-field"],
                interactive=True,
                scale=5,
            )
            with gr.Column(scale=2, min_width=220):
                self.fate = gr.Radio(
                    [(label(f"compare.fate-{name}"), name) for name in SPLITS[::-1]], value="dev", visible=False,
                    label=label("compare.fate"), elem_id="compare-fate", interactive=True,
                )  # fmt: skip
                with gr.Row(elem_classes="glm-line"):
                    self.right = _button("right")
                    self.wrong = _button("wrong")
                    self.feedback = _button("feedback")
                self.verdict = slot("compare-verdict-message", LIVE)

    def wire(self, page: "Page") -> None:
        prompting = Prompting(self, self._studio)
        answering = Answering(self, self._studio)
        judging = Judging(self, self._studio)
        prompting.wire(page)
        answered = answering.wire(page, prompting)
        judging.wire(page, answering.asked, answered)


def _text(name: str, lines: int) -> gr.Textbox:
    return gr.Textbox(
        "",
        label=label(f"annotate.{name}"),
        lines=lines,
        max_lines=lines,
        elem_id=f"compare-{name}",
        elem_classes="glm-field",
        interactive=True,
        autoscroll=False,
    )


def _button(name: str) -> gr.Button:
    return gr.Button(label(f"compare.{name}"), size="sm", interactive=False, min_width=60, elem_id=f"compare-{name}")


def _place_pane(name: str) -> tuple[gr.HTML, gr.HTML]:
    with gr.Column(min_width=300, elem_classes="compare-pane"):
        return slot(f"compare-{name}-head"), slot(f"compare-{name}")
