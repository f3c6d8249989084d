"""Tails the metrics of runs into curves: one copy for every browser, read on where it ended. Knows no component."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glmstudio.ui.charts import Curve

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.training.metrics import MetricRecord
    from glmstudio.training.runs import Run


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

    def tail(self, run: "Run") -> Tail:
        """The run's tail, up to date; empty where its folder has gone meanwhile."""
        with self.lock:
            tail = self._tails.get(run.id)
            # A run that goes on was cut back to its checkpoint: what was read of it is read anew.
            if tail is None or tail.started_at != run.started_at:
                tail = self._tails[run.id] = Tail(Curve(run.id), started_at=run.started_at)
            records, tail.offset = self._studio.metrics(run.id, tail.offset)
            tail.curve.extend(records)
            tail.latest.update({record.kind: record for record in records})
            return tail
