"""The form at the right of Annotate: its fields and buttons, and how a row is put into it. Knows no store."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from glmstudio.data.example import DEFAULT_DATASET, SPLITS, STATUSES, Example
from glmstudio.ui.annotate_drafts import form_state, new_key
from glmstudio.ui.annotate_trail import Trail
from glmstudio.ui.annotate_words import heading_html
from glmstudio.ui.language import label
from glmstudio.ui.page import LIVE, Page, signal, signal_field, slot

# {component: value}; what is left out stays.
Update = dict[Any, Any]


class RowForm:
    """The components of the form. One per page, shared by all browsers: the row being edited, the trail of Undo and the
    colleague's version live in `gr.State`; `drafts.js` keeps the typed text in the browser, by what `state` says."""

    def __init__(self, page: Page) -> None:
        self.editing = gr.State(None)
        self.trail = gr.State(())
        self.theirs = gr.State(None)
        self.state, self.kept, self.picked = signal_field(), signal_field(), signal_field()
        # The instruction that a fresh page begins with, where nobody has typed one by then.
        self.usual = signal_field()
        self._place_fields()
        self._place_conflict()
        self._place_buttons()
        self.fields = [self.instruction, self.input, self.target, self.dataset, self.split, self.status]
        self.changed = [page.refresh_examples, page.unseen_changes]
        self.outputs = [
            *self.fields, self.editing, self.trail, self.state, self.theirs, self.heading, self.message, self.conflict,
            self.conflict_text, self.delete, self.undo, *self.changed,
        ]  # fmt: skip

    def _place_fields(self) -> None:
        with gr.Row(elem_classes="glm-line", elem_id="annotate-place"):
            self.heading = gr.HTML("", elem_id="annotate-heading", apply_default_css=False, js_on_load=None)
            self.dataset = gr.Dropdown(
                [DEFAULT_DATASET],
                value=DEFAULT_DATASET,
                allow_custom_value=True,
                label=label("annotate.save-into"),
                elem_id="annotate-dataset",
                interactive=True,
                scale=2,
            )
            self.split = gr.Dropdown(
                [(label(f"split.{name}"), name) for name in SPLITS],
                value=SPLITS[0],
                label=label("annotate.split"),
                elem_id="annotate-split",
                interactive=True,
                scale=1,
            )
            self.status = gr.Dropdown(
                [(label(f"row-status.{name}"), name) for name in STATUSES],
                value="done",
                label=label("annotate.status"),
                elem_id="annotate-status",
                interactive=True,
                scale=1,
            )
        self.instruction, self.instruction_gauge = _field("instruction", 2)
        self.input, self.input_gauge = _field("input", 4)
        self.target, self.target_gauge = _field("target", 6)

    def _place_conflict(self) -> None:
        with gr.Column(visible=False, elem_id="annotate-conflict") as self.conflict:
            self.conflict_text = gr.HTML("", apply_default_css=False, js_on_load=None)
            with gr.Row(elem_classes="glm-line"):
                self.keep_mine = gr.Button(label("annotate.keep-mine"), size="sm", elem_id="annotate-keep-mine")
                self.take_theirs = gr.Button(label("annotate.take-theirs"), size="sm", elem_id="annotate-take-theirs")

    def _place_buttons(self) -> None:
        with gr.Row(elem_classes="glm-line", elem_id="annotate-actions"):
            self.save = gr.Button(
                label("annotate.save"),
                variant="primary",
                size="sm",
                elem_id="annotate-save",
                elem_classes="glm-on-enter",
            )
            self.new = gr.Button(label("annotate.new"), size="sm", elem_id="annotate-new", elem_classes="glm-on-escape")
            self.delete = gr.Button(label("annotate.delete"), size="sm", elem_id="annotate-delete", interactive=False)
            self.undo = gr.Button(label("annotate.undo"), size="sm", elem_id="annotate-undo", interactive=False)
            self.message = slot("annotate-message", LIVE)

    # What the form shows

    def show(
        self, row: Example, stored: Example | None, language: str, *, key: str = "", forget: Sequence[str] = ()
    ) -> Update:
        """The form with `row` in it, which edits the row `stored` or, where that is None, becomes a new one: `key` is
        its name among the texts that the browser keeps, `forget` the names of those that are saved."""
        shown = (row.instruction, row.input, row.target, row.dataset, row.split, row.status)
        key = str(stored.id) if stored is not None else key or new_key()
        return {
            **dict(zip(self.fields, shown, strict=True)),
            self.editing: stored,
            self.state: form_state(key, stored, forget),
            self.heading: heading_html(stored, language),
            self.delete: gr.update(interactive=stored is not None),
            self.conflict: gr.update(visible=False),
            self.theirs: None,
        }

    def show_new(self, before: Example, language: str, forget: Sequence[str] = ()) -> Update:
        """An empty form that goes on from the row before: its instruction, dataset and split."""
        row = Example(before.instruction, dataset=before.dataset, split=before.split)
        return self.show(row, None, language, forget=forget)

    def keep(self, trail: Trail) -> Update:
        return {self.trail: trail, self.undo: gr.update(interactive=bool(trail))}

    def signals(self) -> Update:
        """Tells the list and the other tabs that rows have changed."""
        return {component: signal() for component in self.changed}


def _field(name: str, lines: int) -> tuple[gr.Textbox, gr.HTML]:
    """A text field and the line of counts under it."""
    field = gr.Textbox(
        label=label(f"annotate.{name}"),
        placeholder=label(f"annotate.{name}-hint"),
        lines=lines,
        max_lines=lines,
        elem_id=f"annotate-{name}",
        elem_classes="glm-mono" if name == "target" else None,
        interactive=True,
        autoscroll=False,
    )
    gauge = gr.HTML("", elem_id=f"annotate-{name}-gauge", apply_default_css=False, js_on_load=None)
    return field, gauge
