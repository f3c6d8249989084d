"""A thread for long work: one piece at a time, the wish to stop, how it failed. Knows no page and no words."""

import threading
from collections.abc import Callable
from typing import Any

from glmstudio import faults
from glmstudio.errors import StudioError

Work = Callable[[Callable[[], bool]], Any]


def nothing(*_: Any) -> None:
    """What happens where nobody listens."""


class RunThread:
    """Runs one `work(should_stop)` at a time; `busy` gives the error where one is under way, from its id.

    `on_failure` hears the StudioError that the work ended with; what else it raises is a bug: its traceback is printed
    and `bug` gives the error for it, from "Type: text". `on_end` is called when the next work may start.
    """

    def __init__(
        self,
        *,
        busy: Callable[[str], StudioError],
        bug: Callable[[str], StudioError],
        on_failure: Callable[[StudioError], None] = nothing,
        on_end: Callable[[], None] = nothing,
    ) -> None:
        self._busy = busy
        self._bug, self._on_failure, self._on_end = bug, on_failure, on_end
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._active = ""

    @property
    def active_id(self) -> str:
        """The id of the work under way, or an empty string."""
        return self._active

    def start(self, prepare: Callable[[], tuple[str, Work]]) -> str:
        """`prepare` gives (id, work), an id that no work had before, and is called only when nothing is under way,
        under the lock, so that two clicks or two tabs start one. Raises what `busy` gives."""
        with self._lock:
            if self._active:
                raise self._busy(self._active)
            work_id, work = prepare()
            # Each work has its own: the wish to stop one never reaches the next.
            self._stop = stop = threading.Event()
            self._active = work_id
            self._thread = threading.Thread(target=self._run, args=(work, stop), name=f"work {work_id}", daemon=True)
            self._thread.start()
            return work_id

    @property
    def stopping(self) -> bool:
        """Whether the work under way was asked to stop."""
        return self._stop.is_set()

    def stop(self, work_id: str) -> None:
        """Asks that work to stop, where it is under way; returns at once."""
        with self._lock:
            if work_id == self._active:
                self._stop.set()

    def close(self, seconds: float) -> None:
        """Asks the work under way to stop and waits for its end, at most that long."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._stop.set()
            thread.join(seconds)

    def _run(self, work: Work, stop: threading.Event) -> None:
        try:
            work(stop.is_set)
        except StudioError as error:
            self._on_failure(error.bare())
        except Exception as error:
            self._on_failure(self._bug(faults.told(error)))
        finally:
            self._active = ""
            self._on_end()
