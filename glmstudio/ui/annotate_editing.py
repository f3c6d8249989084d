"""What the buttons of Annotate's form do to the store: save, delete, undo, pick, go on to the next row of the list.
Every row is saved against the revision that it was loaded with. Each handler answers {component: value}."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import DEFAULT_DATASET, Example
from glmstudio.data.row_reader import Query
from glmstudio.errors import StudioError
from glmstudio.ui import gauges
from glmstudio.ui.annotate_drafts import read_drafts
from glmstudio.ui.annotate_form import RowForm, Update
from glmstudio.ui.annotate_list import ROWS, query_of
from glmstudio.ui.annotate_trail import Step, Trail, is_unsaved, with_revision, with_step
from glmstudio.ui.annotate_words import conflict_html, saved_html
from glmstudio.ui.language import error_text, language_of, t
from glmstudio.ui.page import signal

if TYPE_CHECKING:
    from glmstudio.studio import Studio


@dataclass(frozen=True)
class Shown:
    """The form as a browser sent it: the row in it, the stored row that it edits, the trail, the list beside it and the
    texts that this browser keeps."""

    row: Example
    editing: Example | None
    trail: Trail
    key: str
    query: Query
    kept: str

    @property
    def unsaved(self) -> bool:
        return is_unsaved(self.row, self.editing)

    def left(self) -> Trail:
        """The trail, with the text in the form on it where that was never saved."""
        return with_step(self.trail, "left", self.row, self.key) if self.unsaved else self.trail


class Editing:
    """The handlers. `inputs` are what each of them is given; `wanted` is the list's wish for a page."""

    def __init__(self, studio: "Studio", form: RowForm, filters: Sequence[Any], wanted: gr.Textbox) -> None:
        self._studio, self.form, self._wanted = studio, form, wanted
        self.inputs = [*form.fields, form.editing, form.trail, form.state, *filters, form.kept]
        self.outputs = [*form.outputs, wanted]
        self.opened = [*self.outputs, form.usual]

    def _shown(self, values: Sequence[Any]) -> Shown:
        *fields, editing, trail, state, dataset, split, status, search, kept = values
        row = replace(editing if editing is not None else Example(""), **_typed(fields))
        key = json.loads(state)["key"] if state else ""
        return Shown(row, editing, trail, key, query_of(dataset, split, status, search), kept)

    def _problem(self, error: StudioError, language: str) -> Update:
        return {self.form.message: f'<span class="glm-bad">{escape(error_text(error, language))}</span>'}

    # Saving

    def on_save(self, request: gr.Request, *values: Any) -> Update:
        """Inserts or updates. After a stored row comes the next one of the list, after a new one a new one."""
        shown = self._shown(values)
        return self._save(shown, shown.editing.revision if shown.editing is not None else None, request)

    def on_keep_mine(self, request: gr.Request, theirs: Example, *values: Any) -> Update:
        """Saves over the colleague's version that was shown."""
        return self._save(self._shown(values), theirs.revision, request)

    def _save(self, shown: Shown, revision: int | None, request: gr.Request) -> Update:
        language = language_of(request)
        row = shown.row
        if row.id is None and not row.input.strip() and not row.target.strip():
            return self._problem(StudioError("example-empty"), language)
        # As the list stands now: saving may take the row out of it.
        after = None if row.id is None else self._studio.row_after(shown.query, row.id)
        try:
            saved = self._studio.save_example(row, revision)
        except StudioError as error:
            if error.code == "stale-revision":
                return self._conflict(row, error.params["current"], language)
            return self._problem(error, language)
        if saved.revision == revision:
            trail, message = shown.trail, t("annotate.unchanged", language, id=saved.id)
        else:
            trail = with_step(shown.trail, "added" if row.id is None else "changed", saved)
            message = saved_html(saved, language)
        return self._go_on(shown, saved, after, trail, message, language)

    def _go_on(
        self, shown: Shown, row: Example, after: tuple[int, int] | None, trail: Trail, message: str, language: str
    ) -> Update:
        """The form after `row` was saved or deleted: with the row `after` it in the list, else empty."""
        form = self.form
        rest = form.keep(trail) | {form.message: message} | form.signals()
        if after is None:
            ended = f" {t('annotate.list-ended', language)}" if shown.editing is not None else ""
            return form.show_new(row, language, [shown.key]) | rest | {form.message: message + ended}
        follows, place = after
        turn = {self._wanted: f"{place // ROWS} {signal()}"}
        try:
            return self._opened(follows, shown.kept, language, [shown.key]) | rest | turn
        except StudioError:
            # A colleague deleted it meanwhile.
            return form.show_new(row, language, [shown.key]) | rest

    def _opened(self, row_id: int, kept: str, language: str, forget: Sequence[str] = ()) -> Update:
        """A row of the store, with the text that this browser keeps for it."""
        drafts = [draft for draft in read_drafts(kept) if draft.key == str(row_id) and draft.key not in forget]
        if not drafts:
            row = self._studio.get_example(row_id)
            return self.form.show(row, row, language, forget=forget)
        row, stored = self._unsaved(drafts[-1].row)
        return self.form.show(row, stored, language, forget=forget)

    def _conflict(self, mine: Example, theirs: Example, language: str) -> Update:
        form = self.form
        return {
            form.theirs: theirs,
            form.conflict: gr.update(visible=True),
            form.conflict_text: conflict_html(mine, theirs, language),
            form.message: "",
            **form.signals(),
        }

    def on_take_theirs(self, request: gr.Request, theirs: Example, *values: Any) -> Update:
        """Shows the colleague's version; mine stays within Undo's reach."""
        return self.form.show(theirs, theirs, language_of(request)) | self.form.keep(self._shown(values).left())

    # Another row

    def on_pick(self, event: gr.EventData, request: gr.Request, *values: Any) -> Update:
        """Loads the clicked row; unsaved text makes way but stays within Undo's reach."""
        shown, language = self._shown(values), language_of(request)
        if shown.editing is not None and shown.editing.id == event.id:
            return {self.form.message: ""}
        try:
            return self._opened(event.id, shown.kept, language) | self._left(shown, language)
        except StudioError as error:
            return self._problem(error, language) | self.form.signals()

    def on_new(self, request: gr.Request, *values: Any) -> Update:
        """An empty form with the same instruction."""
        shown, language = self._shown(values), language_of(request)
        return self.form.show_new(shown.row, language) | self._left(shown, language)

    def _left(self, shown: Shown, language: str) -> Update:
        message = t("annotate.left", language) if shown.unsaved else ""
        return self.form.keep(shown.left()) | {self.form.message: message}

    def on_delete(self, request: gr.Request, *values: Any) -> Update:
        """Into the bin; the next row of the list comes into the form."""
        shown, language = self._shown(values), language_of(request)
        after = self._studio.row_after(shown.query, shown.editing.id)
        self._studio.delete_examples([shown.editing.id])
        trail = with_step(shown.left(), "deleted", shown.editing)
        message = t("annotate.deleted", language, id=shown.editing.id)
        return self._go_on(shown, shown.editing, after, trail, message, language)

    def on_restore(self, event: gr.EventData, request: gr.Request, *values: Any) -> Update:
        """A row comes back from the bin, and into the form."""
        shown, language = self._shown(values), language_of(request)
        self._studio.restore_examples([event.id])
        row = self._studio.get_example(event.id)
        message = {self.form.message: t("annotate.undone-deleted", language, id=row.id)}
        left = self.form.keep(shown.left())
        return self.form.show(row, row, language) | left | message | self.form.signals()

    def on_undo(self, request: gr.Request, *values: Any) -> Update:
        """Takes the last step back and shows its row as it is now. Unsaved text becomes the step that is next."""
        shown, form, language = self._shown(values), self.form, language_of(request)
        *earlier, step = shown.trail
        rest = replace(shown, trail=tuple(earlier)).left()
        try:
            row, stored, word = self._take_back(step)
        except StudioError as error:
            return form.keep(rest) | self._problem(error, language) | form.signals()
        trail = form.keep(with_revision(rest, stored) if stored is not None else rest)
        message = {form.message: t(f"annotate.undone-{word}", language, id=step.row.id)}
        return form.show(row, stored, language, key=step.key) | trail | message | form.signals()

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

    def _unsaved(self, row: Example) -> tuple[Example, Example | None]:
        """Text that was never saved, and the stored row it edits, with the revision that it was loaded with. Where that
        row is gone, the text is for a new one."""
        if row.id is None:
            return row, None
        try:
            return row, replace(self._studio.get_example(row.id), revision=row.revision)
        except StudioError:
            return replace(row, id=None, revision=0), None

    # While a person types, and when the page opens

    def on_text(self, request: gr.Request, *values: Any) -> tuple[str, str, str]:
        """Counts under the fields."""
        language, count = language_of(request), self._studio.count_tokens
        instruction, input, target = (text or "" for text in values)
        return (
            gauges.instruction_gauge(instruction, count, language),
            gauges.input_gauge(instruction, input, count, language),
            gauges.target_gauge(target, count, language),
        )

    def on_open(self, request: gr.Request, kept: str | None, picked: str | None) -> Update:
        """A fresh page: the newest unsaved text of this tab, the others within Undo's reach; else the row that the
        address names; else an empty form that goes on from the newest row."""
        language, drafts = language_of(request), read_drafts(kept)
        if drafts:
            *earlier, newest = drafts
            trail: Trail = ()
            for draft in earlier:
                trail = with_step(trail, "left", draft.row, draft.key)
            shown = self.form.show(*self._unsaved(newest.row), language, key=newest.key)
            return shown | self.form.keep(trail) | {self.form.message: t("annotate.undone-left", language)}
        if picked and picked.isdecimal():
            with suppress(StudioError):
                return self._opened(int(picked), "", language)
        newest = next(iter(self._studio.row_starts(Query(), 0, 1).rows), None)
        own = newest is not None and newest.source == "manual" and not newest.instruction.more
        shown = self.form.show_new(Example("", dataset=newest.dataset if newest else DEFAULT_DATASET), language)
        # Whoever was quicker than this answer has begun to type: the texts stay as they are.
        kept_off = self.form.fields[:3]
        return {component: value for component, value in shown.items() if component not in kept_off} | {
            self.form.usual: newest.instruction.text if own else ""
        }


def _typed(fields: Sequence[Any]) -> dict[str, str]:
    instruction, input, target, dataset, split, status = fields
    return {
        "instruction": instruction or "",
        "input": input or "",
        "target": target or "",
        "dataset": (dataset or "").strip() or DEFAULT_DATASET,
        "split": split,
        "status": status,
    }
