"""The right of Train: the chart, how the shown run stands, and the list of runs. Follows the newest run until one is
picked; a second tab, a reload and a restart read the same run folders. Knows no form."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui import live_figure
from glmstudio.ui.charts import drawn_counts, figure, growth, smoothing_weight
from glmstudio.ui.curves import Curves
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import finding_text, label, language_of, t
from glmstudio.ui.live_figure import drawn, hint
from glmstudio.ui.page import QUEUED, look_after, signal_field
from glmstudio.ui.train_status import in_order, preparing_html, run_name, runs_html, status_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.training.runs import Run
    from glmstudio.ui.charts import Curve
    from glmstudio.ui.live import Asked, Live
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
# Which run is shown, and which are laid over it, is the browser's own: `glm.shownRun` is "" for the newest.
_PICK = """
let chosen = "", overlaid = [];
glm.onAsk("train-runs", () => ({ run: chosen, over: overlaid.join("\\n") }));
glm.shownRun = () => chosen;
glm.showNewest = () => { chosen = ""; overlaid = []; glm.look(); };
element.addEventListener("click", (event) => {
  const run = event.target.closest("tr[data-run]")?.dataset.run;
  const order = event.target.closest("[data-order]");
  if (order) {
    const question = order.dataset.question;
    if (!question || confirm(question)) trigger("reorder", { run, order: order.dataset.order });
    return;
  }
  if (!run) return;
  if (!event.target.matches("input")) [chosen, overlaid] = [run, []];
  else if (overlaid.includes(run)) overlaid = overlaid.filter((other) => other !== run);
  else overlaid = [...overlaid, run];
  glm.look();
});
"""
_SHOWN_RUN = "() => [glm.shownRun()]"
# For an event after which the newest run is to be shown.
SHOW_NEWEST = "() => { glm.showNewest(); }"

RESUMABLE = ("stopped", "failed", "interrupted")


@dataclass(frozen=True)
class Shown:
    """What a page looks at: `runs` as the list has them, the one that is shown and those laid over it."""

    runs: "list[Run]"
    run: "Run | None"
    overlaid: "list[Run]"

    @classmethod
    def of(cls, look: "Look", chosen: str, overlaid: "Sequence[str]" = ()) -> "Shown":
        runs = in_order(look.runs, look.queue.waiting)
        known = {run.id: run for run in runs}
        newest = next((run for run in runs if run.id not in look.queue.waiting), runs[0] if runs else None)
        shown = known.get(chosen) or newest
        return cls(runs, shown, [known[name] for name in overlaid if name in known and known[name] is not shown])


class View:
    """Chart, status and list follow the look; the two buttons beside the status are woken."""

    def __init__(self, studio: "Studio", live: "Live") -> None:
        self._studio = studio
        self._curves = Curves(studio)
        live_figure.place(live, "train-chart", "train", self.chart)
        with gr.Row(elem_classes="glm-line", elem_id="train-standing"):
            live.slot("train-status", "train", self.status)
            self.go = gr.Button(label("train.queue-go"), size="sm", visible=False, elem_id="train-queue-go")
            self.resume = gr.Button(label("train.resume"), size="sm", visible=False, elem_id="train-resume")
        self.table = live.slot("train-runs", "train", self.run_list, js_on_load=_PICK)
        # Filled by the browser where it is asked for.
        self._chosen = signal_field()

    def wire(self, page: "Page") -> None:
        page.on_wake(
            "train", self._can, self.on_buttons, [self._chosen], [self.resume, self.go], name="view", js=_SHOWN_RUN
        )
        look_after(self.table.reorder(self.on_reorder, None, None, **QUEUED))
        look_after(self.go.click(self.on_go, None, self.go, **QUEUED))
        look_after(self.resume.click(self.on_resume, self._chosen, self.resume, js=_SHOWN_RUN, **QUEUED))

    # What is drawn

    def chart(self, look: "Look", asked: "Asked") -> dict[str, Any] | None:
        """The figure of the shown runs, or what it grows by."""
        lang, shown = asked.language, _shown(look, asked)
        if shown.run is None:
            return _hint("train.chart-empty", asked)
        with self._curves.lock:
            runs = [shown.run, *shown.overlaid]
            curves = [(run_name(run, lang), self._curves.tail(run).curve) for run in runs]
            if not any(curve.size for _, curve in curves):
                return _hint("train.chart-waiting", asked)
            key = " ".join([lang, *(f"{run.id}@{run.started_at}" for run in runs)])
            counts = drawn_counts(curves)
            now = {"key": key, "counts": counts}
            if asked.page.get("chart") == key:
                if asked.page.get("counts") == counts:
                    return None
                if more := growth(curves, asked.page.get("first", ""), asked.page.get("counts", "")):
                    return now | {"more": more}
            weights = {curve.run_id: smoothing_weight(len(curve.train_losses)) for _, curve in curves}
            return now | _drawn(curves, lang) | {"weights": weights}

    def status(self, look: "Look", asked: "Asked") -> str:
        run = _shown(look, asked).run
        latest = self._curves.tail(run).latest if run else {}
        progress = look.progress_of(run) if run else None
        pausing = run is not None and run.id == look.queue.active and look.queue.pausing
        preparing = preparing_html(look.preparing, asked.language) if look.preparing is not None else ""
        if preparing and look.active is None:
            return preparing
        return preparing + status_html(run, progress, latest, asked.language, pausing=pausing)

    def run_list(self, look: "Look", asked: "Asked") -> str:
        shown, lang = _shown(look, asked), asked.language
        overlaid = [run.id for run in shown.overlaid]
        table = runs_html(shown.runs, shown.run.id if shown.run else "", overlaid, lang, look.queue.waiting)
        return table + "".join(problem_html(error, lang) for error in look.damaged_runs)

    def _can(self, look: "Look", asked: "Asked") -> tuple[bool, bool]:
        return _buttons(look, asked.page.get("run", ""))

    # Handlers

    def on_buttons(self, chosen: str) -> list[Any]:
        return [gr.update(visible=on) for on in _buttons(self._studio.look(), chosen)]

    def on_resume(self, request: gr.Request, chosen: str) -> Any:
        """Goes on with the run that is shown, in the queue where another one trains."""
        look = self._studio.look(fresh=True)
        run = Shown.of(look, chosen).run
        run_id = run.id if run is not None else ""
        anew = self._studio.begins_anew(run_id)
        self._studio.resume_run(run_id, queue=bool(look.queue.active))
        if anew is not None:
            lang = language_of(request)
            gr.Warning(finding_text(anew, lang), title=t("train.resume", lang))
        return gr.update(visible=False)

    def on_go(self) -> Any:
        """Lets the runs go on that wait since a restart."""
        self._studio.start_queue()
        return gr.update(visible=False)

    def on_reorder(self, event: gr.EventData) -> None:
        """A waiting run's arrows and its cross."""
        if event.order == "remove":
            self._studio.remove_from_queue(event.run)
        else:
            self._studio.move_in_queue(event.run, {"up": -1, "down": 1}[event.order])


def _shown(look: "Look", asked: "Asked") -> Shown:
    return Shown.of(look, asked.page.get("run", ""), asked.page.get("over", "").split("\n"))


def _buttons(look: "Look", chosen: str) -> tuple[bool, bool]:
    """Whether the shown run can go on, and whether runs wait for somebody to start the queue."""
    run = Shown.of(look, chosen).run
    return run is not None and run.status in RESUMABLE, look.queue.held > 0


def _hint(key: str, asked: "Asked") -> dict[str, Any] | None:
    return None if asked.page.get("chart") == key else {"key": key} | hint(t(key, asked.language))


def _drawn(curves: "Sequence[tuple[str, Curve]]", lang: str) -> dict[str, Any]:
    shown = figure(curves, {word: t(f"train.chart.{word}", lang) for word in _CHART_WORDS})
    return drawn(shown, {english: t(f"train.plotly.{word}", lang) for english, word in _PLOTLY_WORDS.items()})
