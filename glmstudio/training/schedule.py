"""How the learning rate goes over the steps of a run: it rises in the warm-up, then stays or falls. Numbers only."""

import math
from dataclasses import dataclass
from typing import Any, Self

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class Schedule:
    """Called with the steps that are done, gives the share of the full rate that the next one has.

    `kind` is one of `settings.SCHEDULERS`. The first of `steps` steps has a rate above 0 already (`lead` 1), and at
    least the last one has the full rate of the warm-up's end. What comes behind the warm-up is transformers' own.
    """

    kind: str
    warmup: int
    steps: int
    lead: int = 1

    @classmethod
    def of(cls, kind: str, warmup_ratio: float, steps: int) -> Self:
        return cls(kind, min(math.ceil(steps * warmup_ratio), steps - 1), steps)

    @classmethod
    def former(cls, kind: str, warmup_ratio: float, steps: int) -> Self:
        """That of runs which older versions began: at 0, a ratio of 1.0 as one step, and a constant rate without."""
        warmup = math.ceil(steps * warmup_ratio) if warmup_ratio < 1 else 1
        return cls(kind, 0 if kind == "constant" else warmup, steps, lead=0)

    def __call__(self, done: int) -> float:
        if done < self.warmup:
            return (done + self.lead) / (self.warmup + self.lead)
        if self.kind == "constant":
            return 1.0
        falling = max(1, self.steps - self.warmup)
        if self.kind == "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((done - self.warmup) / falling))))
        return max(0.0, (self.steps - done) / falling)


class ScheduledRate(LambdaLR):
    """Sets an optimizer's rates by a schedule; a checkpoint of an older version goes on with the `former` one."""

    def __init__(self, optimizer: Optimizer, kind: str, warmup_ratio: float, steps: int) -> None:
        self._asked = kind, warmup_ratio, steps
        super().__init__(optimizer, Schedule.of(*self._asked))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A schedule of ours is in the checkpoint with its numbers, transformers' functions are not.
        if not any(state_dict["lr_lambdas"]):
            self.lr_lambdas = [Schedule.former(*self._asked)] * len(self.lr_lambdas)
        super().load_state_dict(state_dict)
