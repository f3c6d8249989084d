"""What happens between two steps of a run: others get their turn, a wish to stop is heard, numbers are written down.

Knows Trainer's events, the run's folder and the gate; knows no loss and no data.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from glmstudio.models.gate import Gate
from glmstudio.training.early_stopping import EarlyStop
from glmstudio.training.metrics import MetricWriter
from glmstudio.training.pace import Pace
from glmstudio.training.runs import RunFolder

SECONDS_BETWEEN_MEMORY_RECORDS = 5.0
SECONDS_BETWEEN_RUN_UPDATES = 2.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `step` and `total` count optimizer steps; the speeds are those of the last steps alone.

    `seconds_left` counts evaluations and saves in; None until a step is done. `phase`: preparing, training, evaluating.
    """

    step: int
    total: int
    epoch: float = 0.0
    loss: float | None = None
    steps_per_second: float = 0.0
    tokens_per_second: float = 0.0
    seconds_left: float | None = None
    memory_bytes: int = 0
    phase: str = "training"
    eval_loss: float | None = None
    best_step: int = 0
    best_eval_loss: float | None = None


class LetOthersIn(TrainerCallback):
    """Lends the turn on the model to whoever waits, wherever no pass is half computed, and takes it back `until` the
    run is to end or wait. The time that others have is none of the step's."""

    def __init__(self, gate: Gate, pace: Pace, until: Callable[[], bool]) -> None:
        self._gate, self._pace, self._until = gate, pace, until

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self._pace.lend(self._gate.let_others_in(until=self._until))

    on_step_end = on_prediction_step = on_substep_end


class StepStart(TrainerCallback):
    """Calls `remember` before each optimizer step, and `forget` behind it."""

    def __init__(self, remember: Callable[[], None], forget: Callable[[], None]) -> None:
        self._remember = remember
        self._forget = forget

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._remember()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._forget()


class StopWhenAsked(TrainerCallback):
    """Ends the loop where a stop is asked for; the Trainer then evaluates and saves nothing more."""

    def __init__(self, should_stop: Callable[[], bool], folder: RunFolder) -> None:
        self._should_stop = should_stop
        self._folder = folder
        self.asked = False

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.asked and state.global_step < state.max_steps and self._should_stop():
            self.asked = True
            self._folder.update(status="stopping", step=state.global_step)
        if self.asked:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    on_prediction_step = on_epoch_end = on_substep_end

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.on_substep_end(args, state, control)
        # The last whole step is recorded; inside a step the loss of half a step must not be.
        control.should_log |= self.asked


class Recorder(TrainerCallback):
    """Writes metric records, the best dev loss and `run.json`, and tells the progress.

    `keep_best` saves the adapter of this moment; `memory_bytes` measures; `progress` is what is known at the start;
    `early` hears of every evaluation whether it was the best.
    """

    def __init__(
        self,
        folder: RunFolder,
        pace: Pace,
        *,
        on_progress: Callable[[Progress], None],
        keep_best: Callable[[], None],
        memory_bytes: Callable[[], int],
        progress: Progress,
        early: EarlyStop,
    ) -> None:
        self._folder = folder
        self._pace = pace
        self._metrics = MetricWriter(folder.metrics_path)
        self._on_progress = on_progress
        self._keep_best = keep_best
        self._memory_bytes = memory_bytes
        self._memory_written = self._run_updated = float("-inf")
        self._early = early
        self.progress = progress

    def close(self) -> None:
        self._metrics.close()

    def tell(self, **changes: Any) -> None:
        """Changes fields of the progress and tells it."""
        self.progress = dataclasses.replace(self.progress, memory_bytes=self._memory_bytes(), **changes)
        self._on_progress(self.progress)

    def halved(self, before: int, after: int) -> None:
        """The token budget, because memory ran out; with the last whole step, because the next one is made again."""
        self._folder.update(token_budget=after, halved_from=before)
        event = {"code": "token-budget-halved", "from": before, "to": after}
        self._metrics.write("event", step=self.progress.step, epoch=self.progress.epoch, **event)
        self.tell()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._folder.update(total=state.max_steps)
        self.tell(step=state.global_step, epoch=state.epoch, total=state.max_steps, phase="training")

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._pace.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pace.end_step()
        control.should_log |= state.global_step >= state.max_steps
        if not control.should_log:
            self._tell_step(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        # metrics.jsonl is the record; the Trainer would write its own copy into every checkpoint.
        state.log_history.clear()
        if "loss" not in logs:
            return
        names = ("loss", "learning_rate", "grad_norm")
        values = {name: logs[name] for name in names} | self._pace.take()
        self._metrics.write("train", step=state.global_step, epoch=state.epoch, **values)
        now = time.monotonic()
        if now - self._run_updated > SECONDS_BETWEEN_RUN_UPDATES:
            self._run_updated = now
            self._folder.update(step=state.global_step)
        self._tell_step(state, loss=logs["loss"])
        if now - self._memory_written > SECONDS_BETWEEN_MEMORY_RECORDS:
            self._memory_written = now
            memory = self.progress.memory_bytes
            self._metrics.write("system", step=state.global_step, epoch=state.epoch, memory_bytes=memory)

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        self.tell(phase="evaluating")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        loss, former = metrics["eval_loss"], self.progress.best_eval_loss
        records: list[tuple[str, dict[str, Any]]] = [("eval", {"loss": loss})]
        best: dict[str, Any] = {}
        better = former is None or loss < former
        if better:
            self._keep_best()
            best = {"best_step": state.global_step, "best_eval_loss": loss}
            self._folder.update(step=state.global_step, **best)
            records.append(("event", {"code": "best", "loss": loss, "former": former}))
        if self._early.count(better) and state.global_step < state.max_steps:
            records.append(("event", {"code": "stopped-early", "best_step": self.progress.best_step}))
        # Last of all: a run that goes on takes the record as the sign that everything before it was done.
        self._metrics.write_together(*records, step=state.global_step, epoch=state.epoch)
        self.tell(phase="training", eval_loss=loss, **best)

    def _tell_step(self, state: Any, **changes: Any) -> None:
        left = self._pace.seconds_left(state.max_steps - state.global_step)
        self.tell(step=state.global_step, epoch=state.epoch, seconds_left=left, **self._pace.recent(), **changes)
