"""One picture of everything that pages show, made at most once a second for the whole program. Knows no page."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.studio.base_slot import BaseStatus
from glmstudio.studio.jobs import BackgroundJob
from glmstudio.studio.run_queue import QueueState

if TYPE_CHECKING:
    from glmstudio.evaluation.scoreboard import Scoreboard
    from glmstudio.studio.run_starts import Preparing
    from glmstudio.training.runs import Run
    from glmstudio.training.train import Progress

# Between two looks.
SECONDS = 1.0


@dataclass(frozen=True)
class Look:
    """What there is and how everything stands. `progress` is that of the run `progressing`, which this process trains
    or trained last. `preparing` is the run that is made ready. `probed` changes when the check of a run knows more of
    the base than before, `rows` when rows of any dataset have changed or more of them are counted."""

    base: BaseStatus
    runs: "tuple[Run, ...]" = ()
    adapters: tuple[AdapterRef, ...] = ()
    boards: "tuple[Scoreboard, ...]" = ()
    damaged_runs: tuple[StudioError, ...] = ()
    damaged_boards: tuple[StudioError, ...] = ()
    active: "Run | None" = None
    progressing: str = ""
    progress: "Progress | None" = None
    queue: QueueState = field(default_factory=QueueState)
    preparing: "Preparing | None" = None
    jobs: tuple[BackgroundJob, ...] = ()
    probing: bool = False
    probed: int = 0
    counting: bool = False
    rows: object = None

    @property
    def busy(self) -> bool:
        """Whether something is under way, so that the next look will show something else."""
        return (
            (self.active is not None and self.active.status != "paused")
            or self.preparing is not None
            or self.probing
            or self.counting
            or self.base.state in ("downloading", "loading")
            or any(job.running for job in self.jobs)
        )

    def job(self, kind: str) -> BackgroundJob | None:
        """The one of this kind under way, or the last one."""
        return next((job for job in self.jobs if job.kind == kind), None)

    def standing(self, kind: str) -> tuple[str, bool]:
        """(the id of that job, empty where there was none; whether it is under way): what its buttons depend on."""
        job = self.job(kind)
        return (job.id, job.running) if job is not None else ("", False)

    def progress_of(self, run: "Run") -> "Progress | None":
        return self.progress if run.id == self.progressing else None


class Looks:
    """Keeps the last picture; `make` draws a new one. Safe to call from several threads: those that come while one is
    made wait for it, and get it."""

    def __init__(self, make: Callable[[], Look]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._last: Look | None = None
        self._made_at = 0.0

    def look(self, *, fresh: bool = False) -> Look:
        """The last picture where it is of the last second; with `fresh` one that shows all that was done by now."""
        least = time.monotonic() - (0.0 if fresh else SECONDS)
        with self._lock:
            if self._last is not None and self._made_at >= least:
                return self._last
            # What changes while it is made is in the next one.
            made_at = time.monotonic()
            self._last, self._made_at = self._make(), made_at
            return self._last
