"""The Annotate tab: the list at the left, the form or a file panel at the right. Layout and wiring only."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui import annotate_list as rows
from glmstudio.ui.annotate_files import FilePanels
from glmstudio.ui.annotate_form import RowForm
from glmstudio.ui.language import language_of, t
from glmstudio.ui.page import QUEUED, QUIET, Page, signal_field

if TYPE_CHECKING:
    from glmstudio.studio import Studio

_LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}


def build(studio: "Studio", page: Page) -> None:
    """Called inside the tab."""
    with gr.Row(elem_id="annotate-columns", equal_height=True):
        with gr.Column(scale=40, min_width=320, elem_id="annotate-left"):
            filters = rows.filter_components()
            table, pager = rows.table_component(), rows.pager_component()
            files = FilePanels(studio, page)
            files.place_buttons()
        with gr.Column(scale=60, min_width=320, elem_id="annotate-right"):
            with gr.Column(elem_id="annotate-form") as form_column:
                form = RowForm(studio, page)
            files.place_panels()
    files.wire(form_column, filters)
    _wire_list(studio, page, [*filters], table, pager, form)
    _wire_form(page, table, form)


def _wire_list(studio: "Studio", page: Page, filters: list[Any], table: gr.HTML, pager: gr.HTML, form: RowForm) -> None:
    place, wanted = gr.State(rows.Place()), signal_field()

    def show(request: gr.Request, place: rows.Place, wanted: str, editing: Any, *filters: str) -> tuple[Any, ...]:
        language, query = language_of(request), rows.query_of(*filters)
        place = place.moved(query, wanted)
        found = studio.page(query, place.number * rows.ROWS, rows.ROWS)
        if place.number >= rows.page_count(found.total):
            place = replace(place, number=rows.page_count(found.total) - 1)
            found = studio.page(query, place.number * rows.ROWS, rows.ROWS)
        selected = editing.id if editing is not None else None
        body = rows.table_html(found.rows, query, selected, studio.count_tokens, language)
        return body, rows.pager_html(place.number, found.total, language), place

    def name_datasets(request: gr.Request, chosen: str | None) -> tuple[Any, Any]:
        names = [summary.name for summary in studio.datasets()]
        choices = [(t("annotate.all-datasets", language_of(request)), ""), *((name, name) for name in names)]
        return gr.update(choices=choices, value=chosen if chosen in names else ""), gr.update(choices=names)

    page.on_load(name_datasets, [filters[0], form.dataset], inputs=[filters[0]])
    # All that redraws the list is one event: a second one's late answer would put rows back that nobody asks for.
    causes = [page.refresh_examples.change, page.base_state.change, wanted.change, *(item.change for item in filters)]
    asked = [place, wanted, form.editing, *filters]
    gr.on([page.blocks.load, *causes], show, asked, [table, pager, place], **_LATEST)
    pager.select(rows.wanted_page, None, wanted, **QUIET)
    changes = [page.refresh_datasets.change, page.unseen_changes.change]
    gr.on(changes, name_datasets, [filters[0]], [filters[0], form.dataset], **QUEUED)
    table.clear(lambda: ("", "", "", ""), None, filters, **QUIET)

    def follow(dataset: str | None, editing: Any) -> Any:
        return gr.skip() if editing is not None or not dataset else dataset

    filters[0].input(follow, [filters[0], form.editing], [form.dataset], **QUIET)


def _wire_form(page: Page, table: gr.HTML, form: RowForm) -> None:
    to_input: dict[str, Any] = {"fn": None, "js": "() => glm.focusInput()", **QUIET}
    with_theirs = [form.theirs, *form.context]
    form.save.click(form.on_save, form.context, form.outputs, **QUEUED).success(**to_input)
    form.keep_mine.click(form.on_keep_mine, with_theirs, form.outputs, **QUEUED)
    form.take_theirs.click(form.on_take_theirs, with_theirs, form.outputs, **QUEUED)
    table.select(form.on_pick, form.context, form.outputs, **QUEUED)
    form.new.click(form.on_new, form.context, form.outputs, **QUEUED).success(**to_input)
    form.delete.click(form.on_delete, form.context, form.outputs, **QUEUED)
    form.undo.click(form.on_undo, form.context, form.outputs, **QUEUED)
    gauges = [form.instruction_gauge, form.input_gauge, form.target_gauge, form.kept]
    texts = [form.instruction.change, form.input.change, form.target.change, page.base_state.change]
    opened = page.on_load(form.on_open, form.outputs, inputs=[form.kept])
    opened.then(form.on_text, form.context, gauges, **QUIET)
    gr.on(texts, form.on_text, form.context, gauges, **_LATEST)
