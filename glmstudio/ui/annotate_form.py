"""The form at the right of Annotate: one row, new or loaded, saved against the revision it was loaded with.
Each handler answers {component: value}; what it leaves out stays. Knows no list: it only signals that rows changed."""

from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import SPLITS, STATUSES, Example
from glmstudio.data.store import Query
from glmstudio.errors import StudioError
from glmstudio.ui import gauges
from glmstudio.ui.annotate_list import DEFAULT_DATASET
from glmstudio.ui.language import error_text, label, language_of, t
from glmstudio.ui.page import Page, annotator_of, signal

if TYPE_CHECKING:
    from glmstudio.studio import Studio

_TRAIL_LENGTH = 100
Update = dict[Any, Any]


@dataclass(frozen=True)
class Step:
    """Something that Undo takes back. `kind`: "added", "changed" or "deleted" (in the store), "left" (unsaved text that
    made way for another row); `row` is the row as it was saved, deleted or left."""

    kind: str
    row: Example


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
        self.changed = [page.refresh_examples, page.refresh_datasets]
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

    def _show_unsaved(self, row: Example, language: str) -> Update:
        """Text that was never saved, against the row it edits: its revision is the one it was loaded with."""
        if row.id is None:
            return self._show(row, None, language)
        stored = replace(self._studio.get_example(row.id), revision=row.revision)
        return self._show(row, stored, language)

    def _remember(self, trail: tuple[Step, ...], step: Step) -> Update:
        return {self.trail: (*trail, step)[-_TRAIL_LENGTH:], self.undo: gr.update(interactive=True)}

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
        step = Step("added" if row.id is None else "changed", saved)
        message = {self.message: saved_html(saved, language)}
        return self._show_new(saved, language) | self._remember(trail, step) | message | self._signals()

    def _conflict(self, mine: Example, theirs: Example, language: str) -> Update:
        return {
            self.theirs: theirs,
            self.conflict: gr.update(visible=True),
            self.conflict_text: conflict_html(mine, theirs, language),
            self.message: "",
        }

    def on_take_theirs(self, request: gr.Request, theirs: Example, *values: Any) -> Update:
        """Shows the colleague's version; mine stays within Undo's reach."""
        *fields, editing, trail = values
        step = Step("left", self._row(fields, editing))
        return self._show(theirs, theirs, language_of(request)) | self._remember(trail, step)

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

    def _left(self, values: tuple[Any, ...], language: str) -> Update:
        *fields, editing, trail = values
        if not is_unsaved(fields[:3], editing):
            return {self.message: ""}
        step = Step("left", self._row(fields, editing))
        return self._remember(trail, step) | {self.message: t("annotate.left", language)}

    def on_delete(self, request: gr.Request, *values: Any) -> Update:
        *_, editing, trail = values
        language = language_of(request)
        self._studio.delete_examples([editing.id])
        message = {self.message: t("annotate.deleted", language, id=editing.id)}
        step = Step("deleted", editing)
        return self._show_new(editing, language) | self._remember(trail, step) | message | self._signals()

    def on_undo(self, request: gr.Request, *values: Any) -> Update:
        """Takes the last step back and shows the row of that step as it is now."""
        *_, trail = values
        language = language_of(request)
        *earlier, step = trail
        rest = {self.trail: tuple(earlier), self.undo: gr.update(interactive=bool(earlier))}
        try:
            shown = self._take_back(step, language)
        except StudioError as error:
            return rest | self._problem(error, language) | self._signals()
        message = {self.message: t(f"annotate.undone-{step.kind}", language, id=step.row.id)}
        return shown | rest | message | self._signals()

    def _take_back(self, step: Step, language: str) -> Update:
        """Takes it back and shows its row. A row that was added is gone then, and its text comes back as a new one."""
        if step.kind == "left":
            return self._show_unsaved(step.row, language)
        if step.kind == "deleted":
            self._studio.restore_examples([step.row.id])
            row = self._studio.get_example(step.row.id)
            return self._show(row, row, language)
        former = self._studio.undo_save(step.row.id, step.row.revision)
        return self._show(former or replace(step.row, id=None, revision=0), former, language)

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
            return self._show_unsaved(row, language) | {self.message: t("annotate.brought-back", language)}
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


def is_unsaved(texts: list[str | None], editing: Example | None) -> bool:
    """Whether the texts would be lost with the form. A new row's instruction alone is not worth keeping."""
    instruction, input, target = (text or "" for text in texts)
    if editing is None:
        return bool(input.strip() or target.strip())
    return (instruction, input, target) != (editing.instruction, editing.input, editing.target)


def local_time(stamp: str) -> str:
    """An ISO 8601 time of the store as "10:42", or with its day when that is not today."""
    moment = datetime.fromisoformat(stamp).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def saved_html(row: Example, language: str) -> str:
    """ "saved 10:42 by li"."""
    key = "annotate.saved-by" if row.annotator else "annotate.saved"
    text = t(key, language, id=row.id, time=local_time(row.updated_at), name=row.annotator)
    return f'<span class="glm-ok">✓</span> {escape(text)}'


def heading_html(row: Example | None, language: str) -> str:
    """Which row the form holds: new, or its number, revision and last save."""
    if row is None:
        return f"<b>{t('annotate.new-row', language)}</b>"
    title = t("annotate.row", language, id=row.id)
    key = "annotate.revision-by" if row.annotator else "annotate.revision"
    detail = t(key, language, revision=row.revision, time=local_time(row.updated_at), name=row.annotator)
    return f"<b>{title}</b><small>{escape(detail)}</small>"


def conflict_html(mine: Example, theirs: Example, language: str) -> str:
    """What the colleague saved meanwhile, field by field where it differs from mine."""
    name = theirs.annotator or t("annotate.somebody", language)
    title = t(
        "annotate.conflict", language, name=name, time=local_time(theirs.updated_at), id=theirs.id,
        revision=theirs.revision,
    )  # fmt: skip
    lines = [
        f"<dt>{t(f'annotate.{field}', language)}</dt><dd>{escape(getattr(theirs, field))}</dd>"
        for field in ("instruction", "input", "target")
        if getattr(theirs, field) != getattr(mine, field)
    ]
    same = f"<p>{t('annotate.conflict-same', language)}</p>"
    return f"<b>⚠ {escape(title)}</b>" + (f"<dl>{''.join(lines)}</dl>" if lines else same)
