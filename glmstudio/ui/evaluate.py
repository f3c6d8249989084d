"""The Evaluate tab: dev rows answered by the base and a run, their scores, the rows that went wrong. Knows no model."""

import json
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings, out_of_bounds
from glmstudio.ui.adapter_choice import AdapterChoice
from glmstudio.ui.choice import Choice, follow_datasets
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.evaluate_words import FILTERS, boards_html, progress_html, row_html, rows_html, scores_html
from glmstudio.ui.forms import Form
from glmstudio.ui.language import label, language_of
from glmstudio.ui.page import LIVE, QUEUED, QUIET, look_after, picks, signal, slot
from glmstudio.ui.train_status import run_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmstudio.evaluation.scoreboard import Scoreboard
    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.ui.live import Asked, Live
    from glmstudio.ui.page import Page


def build(studio: "Studio", page: "Page") -> None:
    """Called inside the tab."""
    Evaluating(studio, page.live).wire(page)


class Evaluating:
    """Shows the newest scoreboard until another one is picked."""

    def __init__(self, studio: "Studio", live: "Live") -> None:
        self._studio = studio
        with gr.Row(elem_id="evaluate-columns", equal_height=True):
            with gr.Column(scale=38, min_width=320, elem_id="evaluate-left"):
                self._place_question(live)
                self.scores = slot("evaluate-scores")
                self.boards = slot("evaluate-boards", picks("tr[data-board]", "board"))
            with gr.Column(scale=62, min_width=320, elem_id="evaluate-right"):
                with gr.Row(elem_classes="glm-line", elem_id="evaluate-bar"):
                    self.filter = gr.Radio(
                        [(label(f"evaluate.filter.{name}"), name) for name in FILTERS], value=FILTERS[0],
                        label=label("evaluate.filter"), show_label=False, container=False, elem_id="evaluate-filter",
                    )  # fmt: skip
                    self.ask = gr.Button(label("evaluate.ask"), size="sm", interactive=False, elem_id="evaluate-ask")
                self.rows = slot("evaluate-rows", picks("tr[data-place]", "place"))
                self.row = slot("evaluate-row")
        self.chosen, self.place = gr.State(""), gr.State(-1)
        # The evaluation that Stop is about.
        self.job = gr.State("")
        self.buttons = [self.job, self.start, self.stop]

    def _place_question(self, live: "Live") -> None:
        with gr.Row(elem_classes="glm-line"):
            self.dataset = Choice(
                [], label=label("evaluate.dataset"), elem_id="evaluate-dataset", interactive=True, min_width=110
            )
            self.adapters = AdapterChoice(self._studio, "evaluate-run", min_width=160, scale=2)
        with gr.Row(elem_classes="settings-grid", elem_id="evaluate-form"):
            self.form = Form("evaluate", GenerationSettings())
            self.form.place("temperature", "max_new_tokens")
        with gr.Row(elem_classes="glm-line"):
            self.start = gr.Button(
                label("evaluate.start"), variant="primary", size="sm", interactive=False, elem_id="evaluate-start"
            )
            self.stop = gr.Button(label("evaluate.stop"), size="sm", interactive=False, elem_id="evaluate-stop")
        live.slot(
            "evaluate-status", "evaluate", lambda look, asked: progress_html(look.job("evaluation"), asked.language),
            js_on_load=LIVE,
        )  # fmt: skip

    def wire(self, page: "Page") -> None:
        asked = [self.chosen, self.place, self.filter]
        shown = [self.scores, self.boards, self.rows, self.row, self.ask]
        opened = page.on_load(self.on_show, shown, inputs=asked)
        follow_datasets(self.dataset, self._studio, page, opened)
        self.adapters.wire(page, "evaluate")
        picked = self.boards.pick(self.on_board, None, [self.chosen, self.place], **QUIET)
        picked.then(self.on_show, asked, shown, **QUIET)
        pointed = self.rows.pick(self.on_row, None, self.place, **QUIET).then(self.on_show, asked, shown, **QUIET)
        # The rows are drawn anew: whoever walks through them by keyboard goes on.
        pointed.then(None, None, None, js="() => glm.keepRowFocus('evaluate-rows')", **QUIET)
        self.filter.input(self.on_show, asked, shown, **QUIET)
        question = [self.dataset, self.adapters.choice, *self.form.inputs]
        begun = self.start.click(self.on_start, question, [self.start, self.chosen, self.place], **QUEUED)
        begun.success(self.on_show, asked, shown, **QUIET)
        look_after(begun)
        self.stop.click(self.on_stop, self.job, self.stop, **QUIET)
        self.ask.click(self.on_ask, [self.chosen, self.place], [page.ask, page.tabs], **QUIET)
        page.on_wake("evaluate", self._standing, self.on_look, [self.adapters.choice, *asked], [*self.buttons, *shown])
        self.adapters.choice.change(self.on_buttons, self.adapters.choice, self.buttons, **QUIET)

    def _standing(self, look: "Look", asked: "Asked") -> tuple[Any, ...]:
        """What the buttons and the scores depend on beside what a person has picked."""
        boards = [(board.name, board.partial) for board in look.boards], len(look.damaged_boards)
        return look.standing("evaluation"), look.base.state, boards, bool(look.adapters)

    # Handlers

    def on_look(self, request: gr.Request, run: str | None, *asked: Any) -> list[Any]:
        """Buttons, and the scores, where an evaluation has ended or another page has made one."""
        return [*self.on_buttons(run), *self.on_show(request, *asked)]

    def on_buttons(self, run: str | None) -> list[Any]:
        look = self._studio.look()
        job, running = look.standing("evaluation")
        can_start = look.base.available and bool(run) and not running
        return [job, gr.update(interactive=can_start), gr.update(interactive=running)]

    def on_show(self, request: gr.Request, chosen: str, place: int, wanted: str) -> list[Any]:
        lang = language_of(request)
        look = self._studio.look()
        board = _chosen(look.boards, chosen)
        names = {run.id: run_name(run, lang) for run in look.runs}
        _, running = look.standing("evaluation")
        return [
            scores_html(board, lang, has_runs=bool(look.adapters), running=running),
            boards_html(look.boards, board, names, lang)
            + "".join(problem_html(error, lang) for error in look.damaged_boards),
            rows_html(board, wanted, place, lang),
            row_html(board, place, lang),
            gr.update(interactive=board is not None and place >= 0),
        ]

    def on_board(self, event: gr.EventData) -> tuple[str, int]:
        return event.board, -1

    def on_row(self, event: gr.EventData) -> int:
        return int(event.place)

    def on_start(self, request: gr.Request, dataset: str | None, run: str | None, *typed: Any) -> list[Any]:
        (settings,), problems = self.form.read(typed)
        for problem in [*problems, *out_of_bounds(settings)]:
            raise problem
        name = self._studio.start_evaluation(dataset or "", run or "", settings)
        return [gr.update(interactive=False), name, -1]

    def on_stop(self, job: str) -> Any:
        self._studio.stop_job(job)
        return gr.update(interactive=False)

    def on_ask(self, chosen: str, place: int) -> list[Any]:
        """Takes the row to Compare, with its run and its dataset."""
        board = _chosen(self._studio.look().boards, chosen)
        if board is None or place < 0:
            return [gr.skip(), gr.skip()]
        row = board.scores["rows"][place]
        adapter = AdapterRef(board.run_id, board.checkpoint).name
        sent = {"instruction": row["instruction"], "input": row["input"], "dataset": board.dataset, "adapter": adapter}
        return [json.dumps(sent | {"signal": signal()}), gr.Tabs(selected="compare")]


def _chosen(boards: "Sequence[Scoreboard]", name: str) -> "Scoreboard | None":
    """The one that was picked, else the newest whole one."""
    whole = sorted(boards, key=lambda board: board.partial)
    return next((board for board in boards if board.name == name), whole[0] if whole else None)
