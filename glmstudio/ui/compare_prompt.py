"""What Compare asks: the prompt, and the dev rows that can be taken as one. Knows no answer."""

import json
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.row_reader import Query
from glmstudio.ui.choice import follow_datasets
from glmstudio.ui.kept import keep
from glmstudio.ui.language import language_of, t
from glmstudio.ui.page import QUIET

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.compare import Compare
    from glmstudio.ui.page import Page


class Prompting:
    """`taken` is the dev row that the prompt is, None for an own prompt."""

    def __init__(self, tab: "Compare", studio: "Studio") -> None:
        self._tab, self._studio = tab, studio
        self.taken = gr.State(None)
        self._place = gr.State(-1)

    def wire(self, page: "Page") -> None:
        tab = self._tab
        tab.adapters.wire(page, "compare")
        asked = [tab.instruction, tab.input, self.taken, tab.expected, *tab.adapters.pointed, tab.dataset]
        page.ask.change(self.on_ask, page.ask, asked, **QUIET)
        row = [tab.instruction, tab.input, self.taken, tab.expected, self._place]
        for button, step in ((tab.earlier, -1), (tab.take, 0), (tab.later, 1)):
            button.click(_stepping(self.on_dev_row, step), [tab.dataset, self._place], row, **QUIET)
        tab.dataset.input(lambda: -1, None, self._place, **QUIET)
        self.opened = keep(page, "prompt", [tab.instruction, tab.input])
        follow_datasets(tab.dataset, self._studio, page, self.opened)

    # Handlers

    def on_ask(self, request: gr.Request, asked: str) -> list[Any]:
        """Takes what another tab has sent: the prompt, its run and its dataset, and what it should answer where that
        is a dev row still."""
        sent = json.loads(asked)
        row = self._studio.dev_row(sent["instruction"], sent["input"], sent["dataset"])
        title = t("compare.expected-row", language_of(request), id=row.id) if row is not None else ""
        expected = f"<b>{escape(title)}</b><span>{escape(row.target)}</span>" if row is not None else ""
        return [sent["instruction"], sent["input"], row, expected, sent["adapter"], True, sent["dataset"]]

    def on_dev_row(self, step: int, request: gr.Request, dataset: str | None, place: int) -> list[Any]:
        """The dev row before, at or after `place` as the prompt, with what it should answer."""
        lang = language_of(request)
        query = Query(dataset=dataset or "", split="dev", status="done")
        total = self._studio.page(query, limit=1).total
        if not total:
            hint = f'<p class="empty-hint">{escape(t("compare.no-dev-rows", lang, dataset=dataset or "–"))}</p>'
            return [gr.skip(), gr.skip(), None, hint, -1]
        place = (place + (step or 1)) % total if place >= 0 else 0
        row = self._studio.page(query, offset=place, limit=1).rows[0]
        title = t("compare.expected", lang, place=f"{place + 1:,}", total=f"{total:,}")
        expected = f"<b>{escape(title)}</b><span>{escape(row.target)}</span>"
        return [row.instruction, row.input, row, expected, place]


def _stepping(handler: Any, step: int) -> Any:
    def move(request: gr.Request, dataset: str | None, place: int) -> list[Any]:
        return handler(step, request, dataset, place)

    return move
