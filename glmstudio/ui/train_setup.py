"""The left of Train: data, preset, settings, check, start, queue, pause and stop. Knows no chart.

Start is off while something is wrong or a run trains; the check below the settings says what. While one trains, a
button of its own puts the next run into the queue.
"""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.settings import PRESETS, LoraSettings, TrainingSettings
from glmstudio.ui.choice import Choice, follow_datasets
from glmstudio.ui.forms import Form
from glmstudio.ui.kept import keep
from glmstudio.ui.language import finding_text, in_numbers, label, language_of, t
from glmstudio.ui.live import marked
from glmstudio.ui.page import QUEUED, QUIET, look_after, signal_field, slot
from glmstudio.ui.train_begin import Beginning
from glmstudio.ui.train_preview import Previewing
from glmstudio.ui.train_status import check_html, facts_html, needs_html
from glmstudio.ui.train_view import SHOW_NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glmstudio.data.quality import Finding
    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.ui.live import Asked
    from glmstudio.ui.page import Page

_GRID = (
    "prompt_style", "method", "num_train_epochs", "learning_rate",
    "per_device_train_batch_size", "r", "pre_seq_len", "max_source_length", "max_target_length",
    "eval_steps", "save_steps", "prefix_projection",
)  # fmt: skip
# The fields that only one method has.
_OF_METHOD = {
    "lora": ("r", "lora_alpha", "lora_dropout", "target_modules"),
    "ptuning": ("pre_seq_len", "prefix_projection"),
}
# A run is shown written down in these ways.
_WRITTEN = ("command", "yaml")
# What follows preset, method and base until a person types something else.
_RECOMMENDED = ("num_train_epochs", "learning_rate")
# A check that has to read more rows than that shows how far it is.
PATIENCE_SECONDS = 0.3
# Behind a press, whose start is under way by then.
_ONCE_IT_STARTS = "() => { setTimeout(() => glm.look(), 500); }"
# The events of one form come in bursts: while one look is under way only the last of the rest is kept.
_DEBOUNCED: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}


class Setup:
    """The components, placed where the layout stands, and what they do. One for all browsers: it keeps no state."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        with gr.Column(elem_id="train-form"):
            self._place_data()
            with gr.Row(elem_id="train-grid", elem_classes="settings-grid"):
                self.form = Form("train", LoraSettings(), studio.default_settings())
                self.form.place(*_GRID)
            with (
                gr.Accordion(label("train.more"), open=False, elem_id="train-more"),
                gr.Row(elem_classes="settings-grid"),
            ):
                self.form.place_rest()
            self.check = slot("train-check")
            self.needs = slot("train-needs")
            self.preview = Previewing(studio)
            with gr.Accordion(label("train.command"), open=False, elem_id="train-command-fold"):
                self._place_command()
        with gr.Row(elem_id="train-actions", elem_classes="glm-line"):
            self.start = gr.Button(
                label("train.start"), variant="primary", size="sm", interactive=False, elem_id="train-start"
            )
            self.queue = gr.Button(label("train.queue"), size="sm", visible=False, elem_id="train-queue")
            self.pause = gr.Button(label("train.pause"), size="sm", visible=False, elem_id="train-pause")
            self.go_on = gr.Button(
                label("train.continue"), variant="primary", size="sm", visible=False, elem_id="train-continue"
            )
            self.stop = gr.Button(label("train.stop"), size="sm", interactive=False, elem_id="train-stop")
        # `active` is the run that the buttons beside Start are about.
        # `situation` is what the check that is shown was made of.
        self.situation, self.active = signal_field(), gr.State("")
        self.recommended = gr.State(self._usual("standard", "lora"))
        self.asked = [self.dataset, self.begin.choice, *self.form.inputs]
        self.running = [self.situation, self.active, self.pause, self.go_on, self.stop]
        # The rows that the check was of.
        self.checked = gr.State("")
        self.looked = [
            self.checked,
            *self.running,
            self.facts,
            self.check,
            self.needs,
            self.start,
            self.queue,
            *self.commands,
        ]

    def _place_data(self) -> None:
        with gr.Row(elem_classes="glm-line", elem_id="train-data"):
            self.dataset = Choice(
                [], label=label("train.dataset"), elem_id="train-dataset", interactive=True, min_width=140, scale=2
            )
            self.preset = gr.Radio(
                [(label(f"train.preset.{name}"), name) for name in PRESETS],
                value="standard",
                label=label("train.preset"),
                elem_id="train-preset",
                min_width=200,
                scale=3,
            )
        self.facts = slot("train-facts")
        with gr.Row(elem_classes="glm-line"):
            self.begin = Beginning(self._studio)

    def _place_command(self) -> None:
        kinds = [(label(f"train.as-{name}"), name) for name in _WRITTEN]
        self.written = gr.Radio(
            kinds,
            value="command",
            label=label("train.written"),
            show_label=False,
            container=False,
            elem_id="train-written",
        )
        self.commands = [
            gr.Textbox(
                show_label=False, lines=2, max_lines=12, interactive=False, elem_id=f"train-{name}", buttons=["copy"],
                visible=name == "command",
            )
            for name in _WRITTEN
        ]  # fmt: skip

    def wire(self, page: "Page") -> None:
        asked, looked = self.asked, self.looked
        self.begin.wire(page, self.form)
        gr.on([component.change for component in asked], self.on_look, asked, looked, **_DEBOUNCED)
        opened = keep(page, "run", [self.preset, self.dataset, *self.form.inputs])
        follow_datasets(self.dataset, self._studio, page, opened).then(self.on_look, asked, looked, **QUIET)
        self.written.change(self.on_written, self.written, self.commands, **QUIET)
        self.preview.wire(page, self.dataset, self.form)
        method = self.form.component("method")
        own = [self.form.component(name) for names in _OF_METHOD.values() for name in names]
        gr.on([method.change, page.blocks.load], self.on_method, method, own, **QUIET)
        processes = self.form.component("num_processes")
        gr.on([page.blocks.load, page.base_state.change], self.on_devices, None, processes, **QUIET)
        rates = [self.form.component(name) for name in _RECOMMENDED]
        recommending = [self.recommended, *rates]
        self.preset.input(self.on_preset, [self.preset, method], recommending, **QUIET)
        gr.on(
            [method.input, page.base_state.change], self.on_recommend, [self.preset, method, *recommending],
            recommending, **QUIET,
        )  # fmt: skip
        pressed = self.start.click(lambda: gr.update(interactive=False), None, self.start, **QUIET)
        look_after(pressed, js=_ONCE_IT_STARTS)
        started = self.start.click(self.on_start, [self.checked, *asked], [self.start, *self.running], **QUEUED)
        started.failure(self.on_look, asked, looked, **QUIET)
        started.success(None, js=SHOW_NEWEST, **QUIET)
        look_after(started)
        look_after(self.queue.click(self.on_queue, [self.checked, *asked], None, **QUEUED))
        for button, handler in ((self.pause, self.on_pause), (self.go_on, self.on_continue), (self.stop, self.on_stop)):
            look_after(button.click(handler, self.active, self.running, **QUEUED))
        page.on_wake("train", self._situation, self.on_look, asked, looked, name="setup")
        # A look that arrives behind a later one shows what was: then it is time for another one.
        self.situation.change(None, self.situation, None, js="(mark) => glm.woke('setup', mark)", **QUIET)

    # Handlers

    def _situation(self, look: "Look", asked: "Asked | None" = None) -> tuple[Any, ...]:
        """What the check, the needs and the buttons depend on beside the form: base, rows, queue and runs."""
        run, queue = (look.active.id, look.active.status) if look.active else (), look.queue
        asked_for = queue.pausing, queue.stopping, queue.held, queue.elsewhere is None, look.preparing is None
        return *run, look.base.state, look.base.source, *asked_for, look.probed, look.probing, look.rows

    def on_method(self, method: str) -> list[Any]:
        """Shows the fields of the method, hides those of the other."""
        return [gr.update(visible=name == method) for name, fields in _OF_METHOD.items() for _ in fields]

    def on_devices(self) -> Any:
        """Several processes are for several graphics cards."""
        return gr.update(visible=self._studio.devices() > 1)

    def on_written(self, chosen: str) -> list[Any]:
        """Shows the run as a command or as a file."""
        return [gr.update(visible=name == chosen) for name in _WRITTEN]

    def on_preset(self, preset: str, method: str) -> list[Any]:
        usual = self._usual(preset, method)
        return [usual, *usual]

    def on_recommend(self, preset: str, method: str, before: tuple[float, ...], *typed: float) -> list[Any]:
        """Another base or method has other usual values: what a person has typed stays, or is typing meanwhile."""
        usual = self._usual(preset, method)
        fields = zip(typed, before, usual, strict=True)
        return [usual, *(new if value == former != new else gr.skip() for value, former, new in fields)]

    def _usual(self, preset: str, method: str) -> tuple[float, ...]:
        settings = self._studio.default_settings(preset, method)
        return tuple(getattr(settings, name) for name in _RECOMMENDED)

    def on_look(self, request: gr.Request, dataset: str | None, begun: str, *typed: Any) -> list[Any]:
        """Checks the form as it stands: facts, everything wrong at once, needs, buttons, command line."""
        lang, situation = language_of(request), self._situation(self._studio.look(fresh=True))
        (lora, settings), problems = self.form.read(typed)
        check = self._studio.plan_run(dataset, lora, settings, begun, seconds=PATIENCE_SECONDS) if dataset else None
        findings, estimate, checked = (check.findings, check.estimate, check.checked) if check else ([], None, "")
        # The check may have taken a while.
        look = self._studio.look(fresh=True)
        status, active = look.base, look.active
        if look.queue.elsewhere is not None:
            problems.append(look.queue.elsewhere)
        if status.error is not None:
            findings = [found for found in findings if found.code != "base-not-ready"]
            problems.append(status.error)
        clear = bool(dataset) and not problems and all(found.severity != "error" for found in findings)
        summary = next((found for found in self._studio.datasets() if found.name == dataset), None)
        plan = next((found.params for found in findings if found.code == "plan"), {})
        measuring = clear and self._studio.probing
        return [
            checked,
            marked(situation),
            *_running(look),
            facts_html(summary, plan, lang),
            check_html(bool(dataset), problems, findings, active, lang, look.queue.held),
            needs_html(
                status.memory_bytes,
                *self._time(plan, settings),
                lang,
                estimate,
                measuring=measuring,
                numbers=in_numbers(status.dtype, status.dtype_reason, lang),
            ),
            gr.update(interactive=clear and active is None and look.preparing is None),
            gr.update(interactive=clear, visible=active is not None),
            self._studio.command_line(dataset, lora, settings, begun) if dataset else "",
            self._studio.run_yaml(dataset, lora, settings, begun) if dataset else "",
        ]

    def _time(self, plan: dict[str, Any], settings: TrainingSettings) -> tuple[float | None, Any]:
        """(seconds, the run that was as fast): the newest one on the same kind of base that went to its end."""
        base = self._studio.base_status()
        for run in self._studio.runs():
            if (
                run.status == "finished"
                and run.step
                and (run.base.source, run.base.device) == (base.source, base.device)
            ):
                row = run.seconds / (run.step * _rows_a_step(run.settings))
                return (row * plan["steps"] * _rows_a_step(settings) if "steps" in plan else None), run
        return None, None

    def on_start(self, request: gr.Request, checked: str, dataset: str, begun: str, *typed: Any) -> list[Any]:
        """Starts the run; the view follows it."""
        self._start(request, checked, dataset, begun, typed)
        return [gr.update(interactive=False), "", *_running(self._studio.look(fresh=True))]

    def on_queue(self, request: gr.Request, checked: str, dataset: str, begun: str, *typed: Any) -> None:
        """Puts the run behind the others; the view stays with what it shows."""
        self._start(request, checked, dataset, begun, typed, queue=True)

    def _start(
        self,
        request: gr.Request,
        checked: str,
        dataset: str,
        begun: str,
        typed: "Sequence[Any]",
        *,
        queue: bool = False,
    ) -> None:
        (lora, settings), _ = self.form.read(typed)
        told: list[Finding] = []
        self._studio.start_run(
            dataset, lora, settings, queue=queue, from_adapter=begun, checked=checked, tell=told.append
        )
        for finding in told:
            lang = language_of(request)
            gr.Warning(finding_text(finding, lang), title=t("train.start", lang))

    def on_pause(self, run_id: str) -> list[Any]:
        """Lets the run wait."""
        return self._told(self._studio.pause_run, run_id)

    def on_continue(self, run_id: str) -> list[Any]:
        """Ends its pause."""
        return self._told(self._studio.continue_run, run_id)

    def on_stop(self, run_id: str) -> list[Any]:
        """Asks the run to stop and keep a checkpoint."""
        return self._told(self._studio.stop_run, run_id)

    def _told(self, verb: "Callable[[str], None]", run_id: str) -> list[Any]:
        """The run that this browser saw, whatever trains by now."""
        verb(run_id)
        # The next look checks again.
        return ["", *_running(self._studio.look(fresh=True))]


def _running(look: "Look") -> list[Any]:
    """The active run and its buttons: pause or continue, stop."""
    active, pausing = look.active, look.queue.pausing
    may = active is not None and not look.queue.stopping
    can_pause = active is not None and active.settings.num_processes == 1
    return [
        active.id if active else "",
        gr.update(visible=can_pause and not pausing, interactive=may),
        gr.update(visible=can_pause and pausing, interactive=may),
        gr.update(interactive=may),
    ]


def _rows_a_step(settings: TrainingSettings) -> int:
    return settings.per_device_train_batch_size * settings.gradient_accumulation_steps
