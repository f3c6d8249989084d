"""The form at the right of Annotate: one row, new or loaded, saved against the revision it was loaded with.
Each handler answers {component: value}; what it leaves out stays. Knows no list: it only signals that rows changed."""

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import SPLITS, STATUSES, Example
from glmstudio.data.store import Query
from glmstudio.errors import StudioError
from glmstudio.ui import gauges
from glmstudio.ui.annotate_list import DEFAULT_DATASET
from glmstudio.ui.annotate_trail import Step, Trail, is_unsaved, with_revision, with_step
from glmstudio.ui.annotate_words import conflict_html, heading_html, saved_html
from glmstudio.ui.language import error_text, label, language_of, t
from glmstudio.ui.page import Page, annotator_of, signal

if TYPE_CHECKING:
    from glmstudio.studio import Studio

Update = dict[Any, Any]


class RowForm:
    """The components of the form and what its buttons do. One per page, shared by all browsers: the row being edited,
    the trail of Undo and the colleague's version live in `gr.State`."""

    def __init__(self, studio: "Studio", page: Page) -> None:
        self._studio, self._page = studio, page
        self.editing = gr.State(None)
        self.trail = gr.State(())
        self.theirs = gr.State(None)
        self.kept = gr.BrowserState({}, storage_key="glmstudio-unsaved", secret="glmstudio")
        self._place_fields()
        self._place_conflict()
        self._place_buttons()
        self.fields = [self.instruction, self.input, self.target, self.dataset, self.split, self.status]
        self.context = [*self.fields, self.editing, self.trail]
        self.changed = [page.refresh_examples, page.unseen_changes]
        self.outputs = [
            *self.context, self.theirs, self.heading, self.message, self.conflict, self.conflict_text,
            self.delete, self.undo, *self.changed,
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
            self.message = gr.HTML("", elem_id="annotate-message", apply_default_css=False, js_on_load=None)

    # What the form shows

    def _show(self, row: Example, stored: Example | None, language: str) -> Update:
        """The form with `row` in it, which edits the row `stored` or, where that is None, becomes a new one."""
        shown = (row.instruction, row.input, row.target, row.dataset, row.split, row.status)
        return {
            **dict(zip(self.fields, shown, strict=True)),
            self.editing: stored,
            self.heading: heading_html(stored, language),
            self.delete: gr.update(interactive=stored is not None),
            self.conflict: gr.update(visible=False),
            self.theirs: None,
        }

    def _show_new(self, before: Example, language: str) -> Update:
        """An empty form that goes on from the row before: its instruction, dataset and split."""
        return self._show(Example(before.instruction, dataset=before.dataset, split=before.split), None, language)

    def _unsaved(self, row: Example) -> tuple[Example, Example | None]:
        """Text that was never saved, and the stored row it edits, with the revision that it was loaded with. Where that
        row is gone, the text is for a new one."""
        if row.id is None:
            return row, None
        try:
            return row, replace(self._studio.get_example(row.id), revision=row.revision)
        except StudioError:
            return replace(row, id=None, revision=0), None

    def _keep(self, trail: Trail) -> Update:
        return {self.trail: trail, self.undo: gr.update(interactive=bool(trail))}

    def _signals(self) -> Update:
        return {component: signal() for component in self.changed}

    def _problem(self, error: StudioError, language: str) -> Update:
        return {self.message: f'<span class="glm-bad">{escape(error_text(error, language))}</span>'}

    # Handlers: field values, the row being edited, the trail

    def on_save(self, request: gr.Request, *values: Any) -> Update:
        """Inserts or updates, then an empty form with the same instruction."""
        *_, editing, _ = values
        return self._save(values, editing.revision if editing is not None else None, request)

    def on_keep_mine(self, request: gr.Request, theirs: Example, *values: Any) -> Update:
        """Saves over the colleague's version that was shown."""
        return self._save(values, theirs.revision, request)

    def _save(self, values: tuple[Any, ...], revision: int | None, request: gr.Request) -> Update:
        *fields, editing, trail = values
        language = language_of(request)
        row = replace(self._row(fields, editing), annotator=annotator_of(request))
        if row.id is None and not row.input.strip() and not row.target.strip():
            return self._problem(StudioError("example-empty"), language)
        try:
            saved = self._studio.save_example(row, revision)
        except StudioError as error:
            if error.code == "stale-revision":
                return self._conflict(row, error.params["current"], language)
            return self._problem(error, language)
        message = {self.message: saved_html(saved, language)}
        trail = self._keep(with_step(trail, "added" if row.id is None else "changed", saved))
        return self._show_new(saved, language) | trail | message | self._signals()

    def _conflict(self, mine: Example, theirs: Example, language: str) -> Update:
        return {
            self.theirs: theirs,
            self.conflict: gr.update(visible=True),
            self.conflict_text: conflict_html(mine, theirs, language),
            self.message: "",
            **self._signals(),
        }

    def on_take_theirs(self, request: gr.Request, theirs: Example, *values: Any) -> Update:
        """Shows the colleague's version; mine stays within Undo's reach."""
        return self._show(theirs, theirs, language_of(request)) | self._keep(self._with_unsaved(values))

    def on_pick(self, event: gr.EventData, request: gr.Request, *values: Any) -> Update:
        """Loads the clicked row; unsaved text makes way but stays within Undo's reach."""
        language = language_of(request)
        try:
            row = self._studio.get_example(event.id)
        except StudioError as error:
            return self._problem(error, language) | self._signals()
        return self._show(row, row, language) | self._left(values, language)

    def on_new(self, request: gr.Request, *values: Any) -> Update:
        """An empty form with the same instruction."""
        *fields, editing, _ = values
        language = language_of(request)
        return self._show_new(self._row(fields, editing), language) | self._left(values, language)

    def _with_unsaved(self, values: tuple[Any, ...]) -> Trail:
        """The trail, with the text in the form on it where that was never saved."""
        *fields, editing, trail = values
        return with_step(trail, "left", self._row(fields, editing)) if is_unsaved(fields[:3], editing) else trail

    def _left(self, values: tuple[Any, ...], language: str) -> Update:
        trail = self._with_unsaved(values)
        message = t("annotate.left", language) if trail is not values[-1] else ""
        return self._keep(trail) | {self.message: message}

    def on_delete(self, request: gr.Request, *values: Any) -> Update:
        *_, editing, _ = values
        language = language_of(request)
        self._studio.delete_examples([editing.id])
        trail = self._keep(with_step(self._with_unsaved(values), "deleted", editing))
        message = {self.message: t("annotate.deleted", language, id=editing.id)}
        return self._show_new(editing, language) | trail | message | self._signals()

    def on_undo(self, request: gr.Request, *values: Any) -> Update:
        """Takes the last step back and shows its row as it is now. Unsaved text becomes the step that is next."""
        language = language_of(request)
        *earlier, step = values[-1]
        rest = self._with_unsaved((*values[:-1], tuple(earlier)))
        try:
            row, stored, word = self._take_back(step)
        except StudioError as error:
            return self._keep(rest) | self._problem(error, language) | self._signals()
        trail = self._keep(with_revision(rest, stored) if stored is not None else rest)
        message = {self.message: t(f"annotate.undone-{word}", language, id=step.row.id)}
        return self._show(row, stored, language) | trail | message | self._signals()

    def _take_back(self, step: Step) -> tuple[Example, Example | None, str]:
        """(row to show, the stored row that it edits, what happened). A row that was only added is gone then, and its
        text comes back as a new one."""
        if step.kind == "left":
            return *self._unsaved(step.row), "left"
        if step.kind == "deleted":
            self._studio.restore_examples([step.row.id])
            row = self._studio.get_example(step.row.id)
            return row, row, "deleted"
        if step.kind == "added":
            current = self._studio.get_example(step.row.id)
            if current.revision != step.row.revision:
                raise StudioError("stale-revision", id=current.id, current=current)
            self._studio.delete_examples([current.id])
            return replace(current, id=None, revision=0), None, "added"
        former = self._studio.undo_save(step.row.id, step.row.revision)
        return former, former, "changed"

    def _row(self, fields: list[Any], editing: Example | None) -> Example:
        instruction, input, target, dataset, split, status = fields
        place = (dataset or "").strip() or DEFAULT_DATASET
        base = editing if editing is not None else Example("")
        return replace(
            base, instruction=instruction, input=input, target=target, dataset=place, split=split, status=status
        )

    # Gauges and the text that survives a reload

    def on_text(self, request: gr.Request, *values: Any) -> tuple[str, str, str, Any]:
        """Counts under the fields, and what a reload must bring back."""
        *fields, editing, _ = values
        language, count = language_of(request), self._studio.count_tokens
        instruction, input, target = (text or "" for text in fields[:3])
        row = self._row(fields, editing)
        kept = {**row.__dict__, "tags": list(row.tags)} if is_unsaved(fields[:3], editing) else {}
        return (
            gauges.instruction_gauge(instruction, count, language),
            gauges.input_gauge(instruction, input, count, language),
            gauges.target_gauge(target, count, language),
            kept,
        )

    def on_open(self, request: gr.Request, kept: dict[str, Any] | None) -> Update:
        """A fresh page: the unsaved text of this browser, else an empty form that goes on from the newest row."""
        language = language_of(request)
        if kept:
            row = Example(**{**kept, "tags": tuple(kept["tags"])})
            return self._show(*self._unsaved(row), language) | {self.message: t("annotate.undone-left", language)}
        rows = self._studio.page(Query(), 0, 1).rows
        newest = rows[0] if rows else Example("", dataset=DEFAULT_DATASET)
        own = newest.source == "manual"
        return self._show_new(Example(newest.instruction if own else "", dataset=newest.dataset), language)


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
