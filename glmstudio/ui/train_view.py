"""The right of Train: the chart, how the shown run stands, and the list of runs. Follows the newest run until one is
picked; a second tab, a reload and a restart read the same run folders. Sends only what changed. Knows no form."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui import live_figure
from glmstudio.ui.charts import figure
from glmstudio.ui.curves import Curves
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import finding_text, label, language_of, t
from glmstudio.ui.live_figure import drawn, hint
from glmstudio.ui.page import QUEUED, QUIET, slot
from glmstudio.ui.train_status import in_order, run_name, runs_html, status_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmstudio.studio import Studio
    from glmstudio.training.runs import Run
    from glmstudio.ui.charts import Curve
    from glmstudio.ui.page import Page

_CHART_WORDS = ("train", "smoothed", "dev", "step", "loss")
_PLOTLY_WORDS = {
    "scale": "scale",
    "Download plot as a PNG": "download",
    "Zoom": "zoom",
    "Pan": "pan",
    "Reset axes": "reset",
    "Double-click to zoom back out": "double-click",
    "Double-click on legend to isolate one trace": "legend",
    "Preparing image - this may take a few seconds": "preparing",
    "Image download succeeded": "downloaded",
    "Sorry, there was a problem downloading your image!": "not-downloaded",
}
_PICK = """
element.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-run]");
  const order = event.target.closest("[data-order]");
  if (order) {
    const question = order.dataset.question;
    if (!question || confirm(question)) trigger("reorder", { run: row.dataset.run, order: order.dataset.order });
  } else if (row) trigger("pick", { run: row.dataset.run, overlay: event.target.matches("input") });
});
"""

_KEPT_CHARTS = 8
RESUMABLE = ("stopped", "failed", "interrupted")


class View:
    """`following` are the states that say which run is shown: ("", ()) is the newest, alone."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        self._curves = Curves(studio)
        self._charts: dict[tuple[Any, ...], str] = {}
        self.chart = live_figure.place("train-chart")
        with gr.Row(elem_classes="glm-line", elem_id="train-standing"):
            self.status = slot("train-status")
            self.go = gr.Button(label("train.queue-go"), size="sm", visible=False, elem_id="train-queue-go")
            self.resume = gr.Button(label("train.resume"), size="sm", visible=False, elem_id="train-resume")
        self.table = slot("train-runs", _PICK)
        self.following = [gr.State(""), gr.State(())]
        self.sent = gr.State({})
        self.asked = [self.sent, *self.following]
        self.shown = [self.chart, self.status, self.table, self.resume, self.go, self.sent]

    def wire(self, page: "Page") -> None:
        page.on_load(self.on_look, self.shown, inputs=self.asked)
        self.refresh_after(self.table.pick(self.on_pick, self.following, self.following, **QUIET))
        self.refresh_after(self.table.reorder(self.on_reorder, None, None, **QUEUED))
        self.refresh_after(self.go.click(self.on_go, None, self.go, **QUEUED))
        self.refresh_after(self.resume.click(self.on_resume, self.following, self.resume, **QUEUED))

    def refresh_after(self, event: Any) -> None:
        """Shows at once what an event has chosen, instead of at the next tick."""
        event.success(self.on_look, self.asked, self.shown, **QUIET)

    # Handlers

    def on_look(self, request: gr.Request, sent: dict[str, int], chosen: str, overlaid: tuple[str, ...]) -> list[Any]:
        """Chart, status and list, each only where it differs from what this browser has."""
        lang = language_of(request)
        queue = self._studio.queue_state()
        waiting = queue.waiting
        runs = in_order(self._studio.runs(), waiting)
        known = {run.id: run for run in runs}
        shown = known.get(chosen) or next((run for run in runs if run.id not in waiting), runs[0] if runs else None)
        others = [known[run_id] for run_id in overlaid if run_id in known and known[run_id] is not shown]
        latest = self._curves.tail(shown).latest if shown else {}
        progress = self._studio.progress(shown.id) if shown else None
        values = (
            self._chart([shown, *others] if shown else [], lang),
            status_html(
                shown, progress, latest, lang, pausing=bool(shown and shown.id == queue.active and queue.pausing)
            ),
            runs_html(runs, shown.id if shown else "", overlaid, lang, waiting)
            + "".join(problem_html(error, lang) for error in self._studio.damaged_runs()),
            shown is not None and shown.status in RESUMABLE,
            queue.held > 0,
        )
        marks = dict(zip(("chart", "status", "runs", "resume", "go"), map(hash, values), strict=True))
        if marks == sent:
            return [gr.skip()] * 6
        same = [sent.get(name) == mark for name, mark in marks.items()]
        html = [gr.skip() if kept else value for kept, value in zip(same[:3], values[:3], strict=True)]
        buttons = [
            gr.skip() if kept else gr.update(visible=value) for kept, value in zip(same[3:], values[3:], strict=True)
        ]
        return [*html, *buttons, marks]

    def _chart(self, runs: "Sequence[Run]", lang: str) -> str:
        """The chart's value, made once for all browsers that look at these runs."""
        if not runs:
            return hint(t("train.chart-empty", lang))
        with self._curves.lock:
            curves = [(run_name(run, lang), self._curves.tail(run).curve) for run in runs]
            if not any(curve.size for _, curve in curves):
                return hint(t("train.chart-waiting", lang))
            key = (lang, *((curve.run_id, curve.size) for _, curve in curves))
            if key not in self._charts:
                while len(self._charts) >= _KEPT_CHARTS:
                    del self._charts[next(iter(self._charts))]
                self._charts[key] = _drawn(curves, lang)
            return self._charts[key]

    def on_resume(self, request: gr.Request, chosen: str, overlaid: tuple[str, ...]) -> Any:
        """Goes on with the run that is shown, in the queue where another one trains."""
        queue = self._studio.queue_state()
        runs = in_order(self._studio.runs(), queue.waiting)
        newest = next((run.id for run in runs if run.id not in queue.waiting), "")
        anew = self._studio.begins_anew(chosen or newest)
        self._studio.resume_run(chosen or newest, queue=bool(queue.active))
        if anew is not None:
            lang = language_of(request)
            gr.Warning(finding_text(anew, lang), title=t("train.resume", lang))
        return gr.update(visible=False)

    def on_go(self, request: gr.Request) -> Any:
        """Lets the runs go on that wait since a restart."""
        self._studio.start_queue()
        return gr.update(visible=False)

    def on_reorder(self, request: gr.Request, event: gr.EventData) -> None:
        """A waiting run's arrows and its cross."""
        if event.order == "remove":
            self._studio.remove_from_queue(event.run)
        else:
            self._studio.move_in_queue(event.run, {"up": -1, "down": 1}[event.order])

    def on_pick(self, chosen: str, overlaid: tuple[str, ...], event: gr.EventData) -> tuple[str, tuple[str, ...]]:
        """A row's click shows its run alone; its box lays the run over the shown one or takes it away."""
        if not event.overlay:
            return event.run, ()
        without = tuple(run_id for run_id in overlaid if run_id != event.run)
        return chosen, without if event.run in overlaid else (*without, event.run)


def _drawn(curves: "Sequence[tuple[str, Curve]]", lang: str) -> str:
    shown = figure(curves, {word: t(f"train.chart.{word}", lang) for word in _CHART_WORDS})
    return drawn(shown, {english: t(f"train.plotly.{word}", lang) for english, word in _PLOTLY_WORDS.items()})
