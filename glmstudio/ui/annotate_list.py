"""The list at the left of Annotate: rows of the store as one HTML table, its pager, and which rows are asked for.
Knows no form; a click hands over a row's id."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from glmstudio.data.example import SPLITS, STATUSES
from glmstudio.data.quality import json_state
from glmstudio.data.row_reader import Query
from glmstudio.data.row_starts import RowStart, TextStart
from glmstudio.ui.choice import Choice
from glmstudio.ui.language import label, t
from glmstudio.ui.page import signal

if TYPE_CHECKING:
    from glmstudio.ui.gauges import Count

# The filter by status that asks for deleted rows.
BIN = "bin"
ROWS = 20
_PREVIEW = 90
_HEAD = 24
# Characters of a text whose tokens the list counts: a page full of such texts is drawn in a tenth of a second.
COUNTED = 8_000
_MARKS = {"done": "●", "draft": "○", "discarded": "✕"}
# One listener at the component's root; the rows under it are replaced with every value.
_ROW_CLICKS = """
element.addEventListener('click', event => {
  const row = event.target.closest('tr[data-id]');
  if (row) { glm.selectRow(row); trigger('select', { id: Number(row.dataset.id) }); }
  const back = event.target.closest('[data-restore]');
  if (back) trigger('restore', { id: Number(back.dataset.restore) });
  if (event.target.closest('[data-clear]')) trigger('clear');
});
"""
_PAGE_CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-page]');
  if (button) trigger('select', { page: Number(button.dataset.page) });
});
"""


def table_component() -> gr.HTML:
    """Holds the rows and nothing else. `.select` and, in the bin, `.restore` carry `id`; `.clear` asks for all rows
    again."""
    return gr.HTML("", elem_id="annotate-table", apply_default_css=False, js_on_load=_ROW_CLICKS)


def pager_component() -> gr.HTML:
    """Holds the row count and the pages. `.select` carries `page` (from 0)."""
    return gr.HTML("", elem_id="annotate-pager", apply_default_css=False, js_on_load=_PAGE_CLICKS)


def filter_components() -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown, gr.Textbox]:
    """Dataset, split, status and search, in this order the inputs of `query_of`."""
    with gr.Row(elem_classes="glm-line"):
        dataset = Choice(
            [(label("annotate.all-datasets"), "")],
            value="",
            label=label("annotate.dataset"),
            elem_id="annotate-filter-dataset",
            scale=3,
        )
        split = gr.Dropdown(
            _with_any("split", SPLITS),
            value="",
            label=label("annotate.split"),
            elem_id="annotate-filter-split",
            scale=2,
        )
        status = gr.Dropdown(
            [*_with_any("row-status", STATUSES), (label("annotate.bin"), BIN)],
            value="",
            label=label("annotate.status"),
            elem_id="annotate-filter-status",
            scale=2,
        )
    search = gr.Textbox(
        label=label("annotate.search-label"),
        show_label=False,
        container=False,
        lines=1,
        max_lines=1,
        placeholder=label("annotate.search"),
        elem_id="annotate-search",
        interactive=True,
    )
    return dataset, split, status, search


def _with_any(group: str, values: Sequence[str]) -> list[tuple[object, str]]:
    return [(label("annotate.any"), ""), *((label(f"{group}.{value}"), value) for value in values)]


@dataclass(frozen=True)
class Place:
    """What the list shows: the page `number` (from 0) of a query, and the last click in the pager that it followed."""

    number: int = 0
    query: Query = field(default_factory=Query)
    wanted: str = ""

    def moved(self, query: Query, wanted: str) -> "Place":
        """Where to go: another query begins at its first page, a new click (of `wanted_page`) leads to its page."""
        if query != self.query:
            return Place(0, query, wanted)
        if wanted != self.wanted:
            return Place(int(wanted.split()[0]), query, wanted)
        return self


def wanted_page(event: gr.EventData) -> str:
    """A click in the pager as a signal: the page, and a value that differs at every click."""
    return f"{event.page} {signal()}"


def query_of(dataset: str | None, split: str | None, status: str | None, search: str | None) -> Query:
    """The filters as a query; a cleared filter means any."""
    place = {"deleted": True} if status == BIN else {"status": status or ""}
    return Query(dataset=dataset or "", split=split or "", search=search or "", **place)


def table_html(rows: Sequence[RowStart], query: Query, selected: int | None, count: "Count", language: str) -> str:
    """The rows as a table, or what to do where there is none. `count` gives the tokens of a text's start or None."""
    if not rows:
        return _empty(query, language)
    body = "".join(_row(row, query, row.id == selected, count, language) for row in rows)
    columns = '<colgroup><col class="m"><col class="n"><col class="i"><col><col class="c"></colgroup>'
    return f'<table class="glm-rows" tabindex="0">{columns}<tbody>{body}</tbody></table>'


def _empty(query: Query, language: str) -> str:
    if query == Query(deleted=True):
        return f'<div class="glm-empty">{t("annotate.bin-empty", language)}</div>'
    if query == Query():
        return f'<div class="glm-empty">{t("annotate.empty", language)}</div>'
    return (
        f'<div class="glm-empty">{t("annotate.nothing-found", language)} '
        f"<button data-clear>{t('annotate.show-all', language)}</button></div>"
    )


def _row(row: RowStart, query: Query, selected: bool, count: "Count", language: str) -> str:
    search, asked = query.search.strip(), row.input if row.input.text else row.instruction
    # Where a long one breaks the check says.
    broken = not row.target.more and json_state(row.target.text) == "broken"
    kind, mark = ("broken", "⚠") if broken else (row.status, _MARKS[row.status])
    hint = t("annotate.broken-json", language) if broken else t(f"row-status.{row.status}", language)
    total = _tokens([row.instruction, row.input, row.target], count)
    badges = [t("source.feedback", language)] if row.source == "feedback" else []
    badges += [t("split.dev", language)] if row.split == "dev" else []
    badge = "".join(f'<span class="glm-badge">{escape(text)}</span>' for text in badges)
    if query.deleted:
        back = f'<button data-restore="{row.id}">{t("annotate.restore", language)}</button>'
        return (
            f'<tr><td class="m">✕</td><td class="n">{row.id}</td>'
            f"<td>{back} {preview(asked, search)}</td>"
            f'<td class="t">{preview(row.target, search)}</td><td class="c"></td></tr>'
        )
    return (
        f'<tr data-id="{row.id}" class="glm-{kind}"{" aria-selected=true" if selected else ""}>'
        f'<td class="m" title="{escape(hint)}">{mark}</td><td class="n">{row.id}</td>'
        f"<td>{badge}{preview(asked, search)}</td>"
        f'<td class="t">{preview(row.target, search)}</td><td class="c">{total}</td></tr>'
    )


def _tokens(texts: Sequence[TextStart], count: "Count") -> str:
    """How many tokens they have together, as "5k+" where it is some more; nothing where nobody can count."""
    counts = [count(text.text, COUNTED) for text in texts]
    if None in counts:
        return ""
    more = any(text.more or found.more for text, found in zip(texts, counts, strict=True))
    total = sum(found.tokens for found in counts)
    if not more:
        return f"{total}"
    return f"{total // 1000}k+" if total >= 1000 else f"{total}+"


def preview(start: TextStart, search: str) -> str:
    """The start of a text on one line as HTML; a match further back is shown too, and each match is marked."""
    line, around, needle = (" ".join(text.split()) for text in (start.text, start.match, search))
    at = line.lower().find(needle.lower()) if needle else -1
    end = at + len(needle)
    if end > _PREVIEW:
        return _far(line, line[_HEAD:], at - _HEAD, end - _HEAD)
    if at < 0 and needle and (far := around.lower().find(needle.lower())) >= 0:
        return _far(line, f"…{around}", far + 1, far + 1 + len(needle))
    shown = line[:_PREVIEW] + ("…" if start.more or len(line) > _PREVIEW else "")
    if at < 0:
        return escape(shown)
    return f"{escape(shown[:at])}<mark>{escape(shown[at:end])}</mark>{escape(shown[end:])}"


def _far(line: str, rest: str, at: int, end: int) -> str:
    """The head of a line, and a match in the rest with what stands around it."""
    start = max(0, at - 12)
    lead = f"{escape(line[:_HEAD])}{' … ' if start else ''}{escape(rest[start:at])}"
    return f"{lead}<mark>{escape(rest[at:end])}</mark>{escape(rest[end : end + _PREVIEW])}"


def pager_html(number: int, total: int, language: str) -> str:
    """How many rows there are, and the pages around page `number` (from 0)."""
    pages = page_count(total)
    count = f'<span class="glm-count">{t("annotate.rows", language, count=f"{total:,}")}</span>'
    if pages == 1:
        return count
    shown = sorted({0, pages - 1, *range(max(0, number - 1), min(pages, number + 2))})
    buttons = [_page_button("‹", number - 1, disabled=number == 0, hint=t("annotate.page-before", language))]
    for before, page in zip([-1, *shown], shown, strict=False):
        if page - before > 1:
            buttons.append("<span>…</span>")
        buttons.append(_page_button(str(page + 1), page, current=page == number))
    buttons.append(_page_button("›", number + 1, disabled=number == pages - 1, hint=t("annotate.page-after", language)))
    return count + f'<span class="glm-pages">{"".join(buttons)}</span>'


def page_count(total: int) -> int:
    return max(1, -(-total // ROWS))


def _page_button(text: str, page: int, *, current: bool = False, disabled: bool = False, hint: str = "") -> str:
    state = ' aria-current="page"' if current else " disabled" if disabled else ""
    return f'<button data-page="{page}"{state}{f" aria-label={escape(hint)!r}" if hint else ""}>{text}</button>'
