"""A pause: the run waits where a stop would be heard, others have the model, and nothing of it is in the weights.

Knows Trainer's events, the run's folder and the gate; knows no loss and no data.
"""

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from glmstudio.models.gate import Gate
from glmstudio.training.callbacks import StopWhenAsked
from glmstudio.training.pace import Pace
from glmstudio.training.pause_wish import PauseWish
from glmstudio.training.runs import RunFolder


class PauseWhenAsked(TrainerCallback):
    """Keeps a checkpoint and waits as long as the wish is there. A stop ends the wait and is heard at once.

    `keep` sees to it that the last whole step has a checkpoint, so that a machine that is switched off meanwhile loses
    no step.
    """

    def __init__(
        self,
        wish: PauseWish,
        stop: StopWhenAsked,
        *,
        keep: Callable[[], None],
        folder: RunFolder,
        gate: Gate,
        pace: Pace,
    ) -> None:
        self._wish, self._stop, self._keep = wish, stop, keep
        self._folder, self._gate, self._pace = folder, gate, pace

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._wish.asked:
            return
        began = time.monotonic()
        self._keep()
        run = self._folder.update(status="paused", step=state.global_step)
        with self._gate.away():
            self._wish.wait()
        seconds = time.monotonic() - began
        self._pace.leave_out(seconds)
        self._folder.update(status="running", paused_seconds=run.paused_seconds + seconds)
        self._stop.on_substep_end(args, state, control)

    # Between micro-batches, too: of a large model a step may take minutes.
    on_substep_end = on_prediction_step = on_step_begin
