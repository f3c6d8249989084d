"""Whether a step of a run may be made: its loss and gradient must be numbers, and the losses must not run away.

Knows numbers and the ids of rows; knows no model and no Trainer.
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from glmstudio.errors import StudioError

# Ten losses in a row that are all among the highest tenth are no scatter: of independent ones that happens once in
# 10 ** 10 steps, behind only ten others once in 17,000.
IN_A_ROW, LEAST_HISTORY, RECENT = 10, 10, 64
# And so far above the usual one that it is worth ending a run: twice the loss and e² = 7 times the perplexity.
TIMES_USUAL, ABOVE_USUAL = 2.0, 2.0
# What a learning rate that was too high is divided by.
LOWER = 10


class LossGuard:
    """Tells losses that run away from losses that scatter.

    A loss is suspect that is among the highest tenth of the last ones, above twice their median and above it by 2. Ten
    suspects in a row, behind at least ten losses, are a run that diverges; a spike that goes down again is scatter.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._suspects: list[float] = []

    def diverges(self, loss: float) -> bool:
        """Takes the loss of one more step."""
        if len(self._recent) >= LEAST_HISTORY and loss > self._bound():
            self._suspects.append(loss)
            return len(self._suspects) >= IN_A_ROW
        self._recent.extend([*self._suspects, loss])
        self._suspects.clear()
        return False

    def _bound(self) -> float:
        highest_tenth = quantiles(self._recent, n=10)[-1]
        return max(highest_tenth, TIMES_USUAL * self.level, self.level + ABOVE_USUAL)

    @property
    def level(self) -> float:
        """The median of the last losses that were no suspects."""
        return median(self._recent)

    @property
    def state(self) -> dict[str, list[float]]:
        """What JSON can hold, for `restore`."""
        return {"recent": list(self._recent), "suspects": list(self._suspects)}

    def restore(self, state: dict[str, list[float]]) -> None:
        self._recent, self._suspects = deque(state["recent"], maxlen=RECENT), list(state["suspects"])


class StepGuard:
    """Gives the error for a step that must not be made, None for a good one.

    `ids` are the ids of all training rows by their number; `rate` is the learning rate of the settings; `fp16` tells
    that the base is held in numbers that end at 65,504.
    """

    def __init__(self, ids: Sequence[int], *, rate: float, fp16: bool) -> None:
        self._ids = ids
        self._rate = rate
        self._fp16 = fp16
        self._step: dict[str, Any] = {}
        self.losses = LossGuard()

    def begin(self, step: int, rows: Sequence[int]) -> None:
        """The step that begins, counted from 1, and the numbers of its rows."""
        self._step = {"step": step, "rows": [self._ids[row] for row in rows]}

    def of_loss(self, loss: float) -> StudioError | None:
        if error := self.of_number(loss):
            return error
        if not self.losses.diverges(loss):
            return None
        losses = {"loss": f"{loss:.3g}", "level": f"{self.losses.level:.3g}", "count": IN_A_ROW}
        return StudioError("loss-diverged", **self._step, **losses, **self._rates)

    def of_number(self, number: float) -> StudioError | None:
        """Of a loss or of a gradient's norm."""
        if math.isfinite(number):
            return None
        if self._fp16:
            return StudioError("loss-not-finite-fp16", **self._step, **self._rates)
        if self._step["step"] == 1:
            return StudioError("loss-not-finite-base", **self._step)
        return StudioError("loss-not-finite", **self._step, **self._rates)

    def of_dev_loss(self, step: int, loss: float) -> StudioError | None:
        """Of the dev rows behind a step."""
        return None if math.isfinite(loss) else StudioError("dev-loss-not-finite", step=step, **self._rates)

    @property
    def _rates(self) -> dict[str, str]:
        return {"rate": f"{self._rate:.2g}", "lower": f"{self._rate / LOWER:.2g}"}
