"""Probes of the resident base on a thread of its own, kept for every kind of adapter. Knows no page and no rows."""

import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from glmstudio.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident
    from glmstudio.training.probe import Probe

_Wish = tuple["Resident", LoraSettings, TrainingSettings]


class Probing:
    """Gives what is known at once and measures the rest in the background, never while `busy` says so."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._lock = threading.Lock()
        self._known: dict[Any, Probe | None] = {}
        self._resident: Resident | None = None
        self._wish: _Wish | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def count(self) -> int:
        """How many kinds have been measured: it changes when there is something new to show."""
        return len(self._known)

    @property
    def active(self) -> bool:
        """Whether something is being measured."""
        return self._wish is not None

    def ask(self, resident: "Resident", lora: LoraSettings, settings: TrainingSettings) -> "Probe | None":
        """The probe of this kind of adapter; None until there is one, which is then being seen to."""
        with self._lock:
            if resident is not self._resident:
                self._known, self._resident = {}, resident
            key = _kind(lora, settings)
            if key in self._known or self._busy() or self._closed.is_set():
                return self._known.get(key)
            self._wish = resident, lora, settings
            if self._thread is None:
                self._thread = threading.Thread(target=self._measure, name="probe", daemon=True)
                self._thread.start()
            return None

    def close(self, seconds: float) -> None:
        """Lets go after the pass that is under way."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _measure(self) -> None:
        from glmstudio.training.probe import probe

        while wish := self._next():
            found = None
            try:
                found = probe(*wish, should_stop=lambda wish=wish: self._left(wish))
            except Exception:
                # What is wrong with the settings the check says; a probe is a help and stands in nobody's way.
                traceback.print_exc()
            self._keep(wish, found)

    def _next(self) -> _Wish | None:
        with self._lock:
            if self._wish is None or self._busy() or self._closed.is_set():
                self._wish = self._thread = None
            return self._wish

    def _left(self, wish: _Wish) -> bool:
        return wish is not self._wish or self._busy() or self._closed.is_set()

    def _keep(self, wish: _Wish, found: "Probe | None") -> None:
        with self._lock:
            resident, lora, settings = wish
            if resident is self._resident and (found is not None or not self._left(wish)):
                self._known[_kind(lora, settings)] = found
            if wish is self._wish:
                self._wish = None


def _kind(lora: LoraSettings, settings: TrainingSettings) -> Any:
    if settings.method == "ptuning":
        return settings.method, settings.pre_seq_len, settings.prefix_projection
    return settings.method, lora.r, bool(lora.lora_dropout), lora.target_modules
