"""The Annotate tab: the list at the left, the form or a file panel at the right. Layout and wiring only."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui import annotate_list as rows
from glmstudio.ui.annotate_editing import Editing
from glmstudio.ui.annotate_files import FilePanels
from glmstudio.ui.annotate_form import RowForm
from glmstudio.ui.annotate_notices import Notices
from glmstudio.ui.language import language_of, t
from glmstudio.ui.page import QUEUED, QUIET, Page, signal_field
from glmstudio.ui.row_words import dataset_choices

if TYPE_CHECKING:
    from glmstudio.studio import Studio

# The filters' names in the address.
_IN_ADDRESS = ("dataset", "split", "status", "search")
_LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}


def build(studio: "Studio", page: Page) -> None:
    """Called inside the tab."""
    with gr.Row(elem_id="annotate-columns", equal_height=True):
        with gr.Column(scale=40, min_width=320, elem_id="annotate-left"):
            notices = Notices(studio)
            filters = rows.filter_components()
            table, pager = rows.table_component(), rows.pager_component()
            files = FilePanels(studio, page)
            files.place_buttons()
        with gr.Column(scale=60, min_width=320, elem_id="annotate-right"):
            with gr.Column(elem_id="annotate-form") as form_column:
                form = RowForm(page)
            files.place_panels()
    files.wire(form_column, filters)
    notices.wire(page)
    wanted = signal_field()
    _wire_list(studio, page, [*filters], table, pager, form, wanted)
    _wire_form(page, table, Editing(studio, form, filters, wanted))


def _wire_list(
    studio: "Studio",
    page: Page,
    filters: list[Any],
    table: gr.HTML,
    pager: gr.HTML,
    form: RowForm,
    wanted: gr.Textbox,
) -> None:
    place = gr.State(rows.Place())

    def show(request: gr.Request, place: rows.Place, wanted: str, editing: Any, *filters: str) -> tuple[Any, ...]:
        language, query = language_of(request), rows.query_of(*filters)
        place = place.moved(query, wanted)
        found = studio.row_starts(query, place.number * rows.ROWS, rows.ROWS)
        if place.number >= rows.page_count(found.total):
            place = replace(place, number=rows.page_count(found.total) - 1)
            found = studio.row_starts(query, place.number * rows.ROWS, rows.ROWS)
        selected = editing.id if editing is not None else None
        body = rows.table_html(found.rows, query, selected, studio.count_tokens, language)
        return body, rows.pager_html(place.number, found.total, language), place

    def name_datasets(request: gr.Request, chosen: str | None) -> tuple[Any, Any]:
        named = dataset_choices(studio.datasets())
        choices = [(t("annotate.all-datasets", language_of(request)), ""), *named]
        chosen = chosen if chosen in dict(named).values() else ""
        return gr.update(choices=choices, value=chosen), gr.update(choices=named)

    # The filters stand in the address, which brings them back.
    named = json.dumps(_IN_ADDRESS)
    placed = page.blocks.load(None, None, filters, js=f"() => glm.placed({named})", **QUIET)
    placed.then(name_datasets, [filters[0]], [filters[0], form.dataset], **QUIET)
    kept = f"(...values) => glm.setPlace({named}, values)"
    gr.on([item.change for item in filters], None, filters, None, js=kept, **QUIET)
    # All that redraws the list is one event: a second one's late answer would put rows back that nobody asks for.
    causes = [page.refresh_examples.change, page.base_state.change, wanted.change, *(item.change for item in filters)]
    asked = [place, wanted, form.editing, *filters]
    drawn = gr.on([page.blocks.load, *causes], show, asked, [table, pager, place], **_LATEST)
    drawn.then(None, None, None, js="() => glm.showSelected()", **QUIET)
    pager.select(rows.wanted_page, None, wanted, **QUIET)
    changes = [page.refresh_datasets.change, page.unseen_changes.change]
    gr.on(changes, name_datasets, [filters[0]], [filters[0], form.dataset], **QUEUED)
    table.clear(lambda: ("", "", "", ""), None, filters, **QUIET)

    def follow(dataset: str | None, editing: Any) -> Any:
        return gr.skip() if editing is not None or not dataset else dataset

    filters[0].input(follow, [filters[0], form.editing], [form.dataset], **QUIET)


def _wire_form(page: Page, table: gr.HTML, editing: Editing) -> None:
    form = editing.form
    # The texts that this browser keeps go with each event: the row that comes next may be one of them.
    sent: dict[str, Any] = {"js": "(...values) => [...values.slice(0, -1), glm.drafts()]", **QUEUED}
    to_next: dict[str, Any] = {"fn": None, "js": "() => glm.focusForm()", **QUIET}
    inputs, outputs = editing.inputs, editing.outputs
    form.save.click(editing.on_save, inputs, outputs, **sent).success(**to_next)
    form.keep_mine.click(editing.on_keep_mine, [form.theirs, *inputs], outputs, **sent).success(**to_next)
    form.take_theirs.click(editing.on_take_theirs, [form.theirs, *inputs], outputs, **sent)
    table.select(editing.on_pick, inputs, outputs, **sent)
    table.restore(editing.on_restore, inputs, outputs, **sent)
    form.new.click(editing.on_new, inputs, outputs, **sent).success(**to_next)
    form.delete.click(editing.on_delete, inputs, outputs, **sent).success(**to_next)
    form.undo.click(editing.on_undo, inputs, outputs, **sent)
    texts = [form.instruction, form.input, form.target]
    gauges = [form.instruction_gauge, form.input_gauge, form.target_gauge]
    first = "async () => [await glm.firstDrafts(), glm.placedRow()]"
    opening = page.blocks.load(editing.on_open, [form.kept, form.picked], editing.opened, js=first, **QUIET)
    opening = opening.then(
        None, [form.instruction, form.usual], form.instruction, js="(typed, usual) => [typed || usual]", **QUIET
    )
    opening.then(editing.on_text, texts, gauges, **QUIET)
    gr.on([*(text.change for text in texts), page.base_state.change], editing.on_text, texts, gauges, **_LATEST)
    typed = [*form.fields, form.state]
    gr.on([item.change for item in typed], None, typed, None, js="(...values) => glm.keepDraft(...values)", **QUIET)
    form.state.change(None, form.state, None, js="(state) => glm.keepRow(state)", **QUIET)
