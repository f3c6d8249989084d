"""How fast a run goes: steps and tokens per second, seconds left. Knows a clock only."""

import time
from collections import deque

RECENT_STEPS = 50


class Pace:
    """Measures optimizer steps from `begin_step` to `end_step`; what lies between two steps (evaluation, saving) counts
    in `seconds_left` only."""

    def __init__(self) -> None:
        self._tokens = self._targets = 0
        self._began = 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)
        self._ends = deque([time.monotonic()], maxlen=RECENT_STEPS + 1)
        self._forget()

    def _forget(self) -> None:
        self._since_seconds = 0.0
        self._since_steps = self._since_tokens = self._since_targets = 0

    def count(self, tokens: int, targets: int) -> None:
        """The real tokens and the target tokens of the step that begins."""
        self._tokens, self._targets = tokens, targets

    def begin_step(self) -> None:
        self._began = time.monotonic()

    def end_step(self) -> None:
        now = time.monotonic()
        self._recent.append((now - self._began, self._tokens))
        self._ends.append(now)
        self._since_seconds += now - self._began
        self._since_steps += 1
        self._since_tokens += self._tokens
        self._since_targets += self._targets

    def lend(self, seconds: float) -> None:
        """Others had the model so long until now: that is no time of the step under way."""
        self._began += seconds

    def leave_out(self, seconds: float) -> None:
        """The run has waited so long until now: no time of a step, nor of what lies between two."""
        self.lend(seconds)
        self._ends = deque((end + seconds for end in self._ends), maxlen=self._ends.maxlen)

    def take(self) -> dict[str, float]:
        """Speeds of the steps since it was asked last, under the names of a train record."""
        seconds = self._since_seconds
        speeds = {
            "tokens_per_second": round(self._since_tokens / seconds, 2),
            "target_tokens_per_second": round(self._since_targets / seconds, 2),
            "steps_per_second": round(self._since_steps / seconds, 4),
        }
        self._forget()
        return speeds

    def recent(self) -> dict[str, float]:
        """Speeds of the last steps; 0 before the first."""
        seconds = sum(second for second, _ in self._recent)
        if not seconds:
            return {"steps_per_second": 0.0, "tokens_per_second": 0.0}
        tokens = sum(token for _, token in self._recent)
        return {"steps_per_second": len(self._recent) / seconds, "tokens_per_second": tokens / seconds}

    def seconds_left(self, steps: int) -> float | None:
        """Seconds that so many steps will take, by the mean of the last ones; None before the first."""
        if len(self._ends) < 2:
            return None
        return steps * (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
