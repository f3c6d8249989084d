"""Whether a step of a run may be made: its loss and gradient must be numbers, and the losses must not run away.

Knows numbers and the ids of rows; knows no model and no Trainer.
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from glmstudio.errors import StudioError

# Losses of a run that only scatter, in whatever order, have five in a row above all of ten or more before them in one
# of 800 runs of any length (the sum of 1/C(n, 5) for n ≥ 15), and hardly ever at twice the median besides.
LEAST_HISTORY, IN_A_ROW, TIMES_MEDIAN = 10, 5, 2.0
RECENT = 256
# What a learning rate that was too high is divided by.
LOWER = 10


class LossGuard:
    """Tells losses that run away from losses that scatter.

    A loss is suspect that is higher than every one before and than twice the median of the last ones. Five suspects in
    a row, behind at least ten losses, are a run that diverges; a spike that goes down again counts as scatter.
    """

    def __init__(self) -> None:
        self._highest = -math.inf
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._suspects: list[float] = []

    def diverges(self, loss: float) -> bool:
        """Takes the loss of one more step."""
        enough = len(self._recent) >= LEAST_HISTORY
        if enough and loss > self._highest and loss > TIMES_MEDIAN * median(self._recent):
            self._suspects.append(loss)
            return len(self._suspects) >= IN_A_ROW
        usual = [*self._suspects, loss]
        self._recent.extend(usual)
        self._highest = max(self._highest, *usual)
        self._suspects.clear()
        return False

    @property
    def level(self) -> float:
        """The median of the last losses that were no suspects."""
        return median(self._recent)

    @property
    def state(self) -> dict[str, Any]:
        """What JSON can hold, for `restore`."""
        return {"highest": self._highest, "recent": list(self._recent), "suspects": list(self._suspects)}

    def restore(self, state: dict[str, Any]) -> None:
        self._highest, self._suspects = state["highest"], list(state["suspects"])
        self._recent = deque(state["recent"], maxlen=RECENT)


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
