"""Tails the metrics of runs into curves: one copy for every browser, read on where it ended. Knows no component."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glmstudio.ui.charts import Curve

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.training.metrics import MetricRecord


@dataclass
class Tail:
    """What was read of one run: its curve and the latest record of each kind."""

    curve: Curve
    latest: dict[str, "MetricRecord"] = field(default_factory=dict)
    offset: int = 0
    started_at: float | None = None


class Curves:
    """The tails of all runs that somebody looked at. Who reads a curve holds `lock`: another browser may extend it."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        self.lock = threading.RLock()
        self._tails: dict[str, Tail] = {}

    def tail(self, run_id: str) -> Tail:
        """The run's tail, up to date."""
        with self.lock:
            started_at = self._studio.run(run_id).started_at
            tail = self._tails.get(run_id)
            # A run that goes on was cut back to its checkpoint: what was read of it is read anew.
            if tail is None or tail.started_at != started_at:
                tail = self._tails[run_id] = Tail(Curve(run_id), started_at=started_at)
            records, tail.offset = self._studio.metrics(run_id, tail.offset)
            tail.curve.extend(records)
            tail.latest.update({record.kind: record for record in records})
            return tail
