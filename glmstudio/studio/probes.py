"""Probes of the resident base on a thread of its own, kept for every kind of adapter. Knows no page and no rows."""

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from glmstudio import faults
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident
    from glmstudio.studio.base_slot import Use
    from glmstudio.training.probe import Probe

# With the tokens of the run's largest micro-batch.
_Wish = tuple[LoraSettings, TrainingSettings, int]


class Probing:
    """Gives what is known at once and measures the rest in the background, never while `busy` says so.

    `use` holds the resident base while it is measured; between two probes nothing here does."""

    def __init__(self, use: "Callable[[], AbstractContextManager[Use]]", busy: Callable[[], bool]) -> None:
        self._use, self._busy = use, busy
        self._lock = threading.Lock()
        self._known: dict[Any, Probe | StudioError | None] = {}
        self._resident: Callable[[], Resident | None] = lambda: None
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

    def ask(
        self, resident: "Resident", lora: LoraSettings, settings: TrainingSettings, most: int
    ) -> "Probe | StudioError | None":
        """The probe of this kind of adapter for runs of at most so many tokens at a time, or why it has none; None
        until that is known, which is then being seen to."""
        with self._lock:
            self._change(resident)
            key = _kind(resident, lora, settings, most)
            if key in self._known or self._busy() or self._closed.is_set():
                return self._known.get(key)
            self._wish = lora, settings, most
            if self._thread is None:
                self._thread = threading.Thread(target=self._measure, name="probe", daemon=True)
                self._thread.start()
            return None

    def measured(
        self, resident: "Resident", lora: LoraSettings, settings: TrainingSettings, most: int
    ) -> "Probe | StudioError | None":
        """As `ask`, but what is not known is measured on this thread, whoever is busy; None where a run has begun on
        this base meanwhile."""
        with self._lock:
            self._change(resident)
            if (known := self._known.get(key := _kind(resident, lora, settings, most))) is not None:
                return known
        found = _probed(resident, (lora, settings, most), self._closed.is_set)
        with self._lock:
            if found is not None and resident is self._resident():
                self._known[key] = found
        return found

    def close(self, seconds: float) -> None:
        """Lets go after the pass that is under way."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _change(self, resident: "Resident") -> None:
        if resident is not self._resident():
            self._known, self._resident = {}, weakref.ref(resident)

    def _measure(self) -> None:
        while wish := self._next():
            try:
                with self._use() as use:
                    self._keep(use, wish, _probed(use.resident, wish, partial(self._left, use, wish)))
            except StudioError:
                # The base is on its way: it is asked for again once it is there.
                self._drop(wish)

    def _next(self) -> _Wish | None:
        with self._lock:
            if self._wish is None or self._busy() or self._closed.is_set():
                self._wish = self._thread = None
            return self._wish

    def _left(self, use: "Use", wish: _Wish) -> bool:
        return wish is not self._wish or self._busy() or self._closed.is_set() or use.leaving()

    def _keep(self, use: "Use", wish: _Wish, found: "Probe | StudioError | None") -> None:
        with self._lock:
            if use.resident is self._resident() and (found is not None or not self._left(use, wish)):
                self._known[_kind(use.resident, *wish)] = found
        self._drop(wish)

    def _drop(self, wish: _Wish) -> None:
        with self._lock:
            if wish is self._wish:
                self._wish = None


def _probed(resident: "Resident", wish: _Wish, should_stop: Callable[[], bool]) -> "Probe | StudioError | None":
    from glmstudio.training.probe import probe

    lora, settings, most = wish
    try:
        return probe(resident, lora, settings, most=most, should_stop=should_stop)
    except StudioError as error:
        return error.bare()
    except Exception as error:
        # A probe is a help and stands in nobody's way.
        faults.record(error)
        return None


def _kind(resident: "Resident", lora: LoraSettings, settings: TrainingSettings, most: int) -> Any:
    from glmstudio.training.probe import extent

    size = extent(resident.base, most)
    if settings.method == "ptuning":
        return size, settings.method, settings.pre_seq_len, settings.prefix_projection
    return size, settings.method, lora.r, bool(lora.lora_dropout), lora.target_modules
