"""A thread for long work, training above all: one run at a time, its progress, the wish to stop. Knows no page."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glmstudio.errors import StudioError

if TYPE_CHECKING:
    from glmstudio.training.train import Progress


class RunThread:
    """Runs one `work(should_stop, on_progress)` at a time; `busy` is the code of the error where one is under way."""

    def __init__(self, busy: str = "run-active") -> None:
        self._busy = busy
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._run_id = ""
        self._progress: Progress | None = None

    @property
    def active_id(self) -> str:
        """The id of the run that trains now, or an empty string."""
        thread = self._thread
        return self._run_id if thread is not None and thread.is_alive() else ""

    def progress(self, run_id: str) -> "Progress | None":
        return self._progress if run_id == self._run_id else None

    def start(self, prepare: Callable[[], tuple[str, Callable[..., Any]]]) -> str:
        """`prepare` gives (run id, work) and is called only when no run is active, under the lock, so that two clicks
        or two tabs start one run. Raises StudioError `busy`."""
        with self._lock:
            if self.active_id:
                raise StudioError(self._busy, run=self.active_id)
            run_id, work = prepare()
            self._stop.clear()
            self._run_id, self._progress = run_id, None
            self._thread = threading.Thread(
                target=work, args=(self._stop.is_set, self._on_progress), name=f"train {run_id}", daemon=True
            )
            self._thread.start()
            return run_id

    def stop(self, run_id: str) -> None:
        """Asks the run to stop and keep a checkpoint; returns at once."""
        if run_id != self.active_id:
            raise StudioError("run-not-active", run=run_id)
        self._stop.set()

    def close(self, seconds: float) -> None:
        """Asks an active run to stop and waits for its checkpoint, at most that long."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._stop.set()
            thread.join(seconds)

    def _on_progress(self, progress: "Progress") -> None:
        self._progress = progress
