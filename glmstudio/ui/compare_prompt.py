"""What Compare asks and whom: the prompt, the dev rows that can be taken as one, the run and its checkpoint.
The newest run's best checkpoint is chosen until a person picks another."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.store import Query
from glmstudio.ui.choice import follow_datasets
from glmstudio.ui.kept import keep
from glmstudio.ui.language import language_of, t
from glmstudio.ui.page import QUIET
from glmstudio.ui.train_status import run_name

if TYPE_CHECKING:
    from glmstudio.studio import AdapterRef, Studio
    from glmstudio.training.runs import Run
    from glmstudio.ui.compare import Compare
    from glmstudio.ui.page import Page


class Prompting:
    """`taken` is the dev row that the prompt is, None for an own prompt."""

    def __init__(self, tab: "Compare", studio: "Studio") -> None:
        self._tab, self._studio = tab, studio
        self.taken = gr.State(None)
        self._place = gr.State(-1)
        self._choices = gr.State(())
        self._picked = gr.State(False)
        self.ticked = [tab.run, self._choices]
        self.ticking = [*self.ticked, self._picked]

    def wire(self, page: "Page") -> None:
        tab = self._tab
        page.on_load(self.on_runs, self.ticked, inputs=self.ticking)
        tab.run.input(lambda: True, None, self._picked, **QUIET)
        row = [tab.instruction, tab.input, self.taken, tab.expected, self._place]
        for button, step in ((tab.earlier, -1), (tab.take, 0), (tab.later, 1)):
            button.click(_stepping(self.on_dev_row, step), [tab.dataset, self._place], row, **QUIET)
        tab.dataset.input(lambda: -1, None, self._place, **QUIET)
        self.opened = keep(page, "prompt", [tab.instruction, tab.input])
        follow_datasets(tab.dataset, self._studio, page, self.opened)

    # Handlers

    def on_runs(self, request: gr.Request, value: str | None, last: tuple[Any, ...], picked: bool) -> list[Any]:
        """Every checkpoint there is; sent only when the list has changed."""
        lang = language_of(request)
        runs = {run.id: run for run in self._studio.runs()}
        choices = tuple((adapter_label(runs[ref.run_id], ref, lang), ref.name) for ref in self._studio.adapters())
        if choices == last:
            return [gr.skip(), gr.skip()]
        names = [name for _, name in choices]
        kept = value if picked and value in names else names[0] if names else None
        return [gr.update(choices=list(choices), value=kept), choices]

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


def adapter_label(run: "Run", ref: "AdapterRef", lang: str) -> str:
    """ "run 3 · best (step 300)"."""
    name, _, number = ref.checkpoint.partition("-")
    # A run without dev rows has no best step: its best is its last.
    steps = {"best": run.best_step or run.step, "last": run.step}
    where = t(f"compare.checkpoint.{name}", lang, step=f"{int(number) if number else steps[name]:,}")
    return f"{run_name(run, lang)} · {where}"


def _stepping(handler: Any, step: int) -> Any:
    def move(request: gr.Request, dataset: str | None, place: int) -> list[Any]:
        return handler(step, request, dataset, place)

    return move
