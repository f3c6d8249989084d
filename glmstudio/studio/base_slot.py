"""The place of the one resident base: which one is wished for, its download and loading on a thread, its state, and who
uses it, so that it is gone before another one comes. Knows no page, no words and no run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glmstudio import faults
from glmstudio.environment import importing
from glmstudio.errors import StudioError
from glmstudio.studio.jobs import TimeLeft

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident


# How often whoever waits for a base looks whether to go on waiting.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class BaseWish:
    """What to load, as `load_base` takes it."""

    source: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "none"


@dataclass(frozen=True)
class Download:
    """Bytes so far."""

    done: int
    total: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class BaseStatus:
    """`state` is released (let go of, or not asked for yet: the rest is then as it was last, but for the memory),
    downloading (then with its `download`), loading, ready or failed. `memory_bytes` is what the process
    holds, `weight_bytes` what the base's weights take of it, `parameters` a count, `quantization` "none", "8bit" or
    "4bit"; `fingerprint` tells the weights by content; `dtype_reason` is what speaks for its numbers or against them,
    as `devices.DTYPE_REASONS`."""

    state: str
    source: str
    family: str = ""
    device: str = ""
    dtype: str = ""
    memory_bytes: int = 0
    parameters: int = 0
    quantization: str = "none"
    weight_bytes: int = 0
    download: Download | None = None
    error: StudioError | None = None
    fingerprint: str = ""
    dtype_reason: str = ""

    @property
    def demonstration(self) -> bool:
        return self.source == "embedded"

    @property
    def available(self) -> bool:
        """Whether it answers now, or is loaded for whoever asks."""
        return self.state in ("ready", "released")


@dataclass(eq=False)
class Use:
    """Somebody who works with the base. `leaving` says that it is to go: end soon. With `refusal` it stays meanwhile,
    and that is what whoever wants another one is told."""

    resident: "Resident"
    leaving: Callable[[], bool]
    refusal: StudioError | None


class _Loading:
    """One wish that nobody needs yet, is on its way or there: the thread, how it ended, and who uses what came.
    `former` is what was there before; `on_ready` hears the source of what has come. `again` says that somebody needed
    what was let go of."""

    def __init__(self, wish: BaseWish, on_ready: Callable[[str], None], former: "_Loading | None" = None) -> None:
        self.wish, self.again = wish, False
        self.settled = threading.Event()
        self.stop = threading.Event()
        self.resident: Resident | None = None
        self.error: StudioError | None = None
        self.download: Download | None = None
        self._left = TimeLeft()
        self.uses: list[Use] = []
        self.unused = threading.Event()
        self.unused.set()
        self._on_ready, self._former = on_ready, former
        self._released = BaseStatus("released", wish.source)
        if former is not None and former.wish == wish:
            gone = {"memory_bytes": 0, "weight_bytes": 0, "download": None, "error": None}
            self._released = replace(former.status(), state="released", **gone)
        self._making_room = threading.Lock()
        self._thread = threading.Thread(target=self._load, name="load base", daemon=True)

    @property
    def started(self) -> bool:
        return self._thread.ident is not None

    def start(self) -> None:
        self._thread.start()

    def _load(self) -> None:
        try:
            self.make_room()
            if not self.stop.is_set():
                self.resident = self._loaded()
                self._on_ready(self.resident.base.source)
        except StudioError as error:
            self.error = error.bare()
        except Exception as error:
            self.error = StudioError("base-failed", source=self.wish.source, reason=faults.told(error))
        finally:
            self.settled.set()

    def _loaded(self) -> "Resident":
        with importing:
            from glmstudio.models.loading import load_base
            from glmstudio.models.resident import Resident

        wish = self.wish
        base = load_base(
            wish.source, device=wish.device, dtype=wish.dtype, quantization=wish.quantization,
            on_download=self._on_download, should_stop=self.stop.is_set,
        )  # fmt: skip
        return Resident(base)

    def _on_download(self, done: int, total: int, file: str) -> None:
        self.download = Download(done, total, self._left.seconds(done, total))

    def make_room(self) -> None:
        """Waits until nobody uses the former one, and lets go of it: two bases at a time may be more than the machine
        holds."""
        with self._making_room:
            former, self._former = self._former, None
            if former is None:
                return
            if not former.started:
                former.make_room()
                return
            former.settled.wait()
            former.unused.wait()
            former.resident = None
            from glmstudio.training.memory_shortage import free_memory

            free_memory()

    def status(self) -> BaseStatus:
        if self.error is not None:
            return BaseStatus("failed", self.wish.source, error=self.error)
        resident = self.resident
        if resident is None:
            return self._on_its_way() if self.started else self._released
        from glmstudio.models.devices import dtype_reason

        base = resident.base
        return BaseStatus(
            "ready",
            base.source,
            base.family.name,
            str(base.device),
            str(base.dtype).removeprefix("torch."),
            resident.memory_bytes,
            resident.parameters,
            base.quantization,
            resident.weight_bytes,
            fingerprint=base.fingerprint,
            dtype_reason=dtype_reason(base.dtype, base.device),
        )

    def _on_its_way(self) -> BaseStatus:
        got, source = self.download, self.wish.source
        if got is None or got.done >= got.total:
            return BaseStatus("loading", source)
        return BaseStatus("downloading", source, download=got)


def never() -> bool:
    """The `should_stop` of work that nothing stops."""
    return False


class BaseSlot:
    """Holds the base that was wished for last; `on_ready` hears its source whenever one has come. Safe to call from
    several threads."""

    def __init__(self, wish: BaseWish, on_ready: Callable[[str], None] = lambda source: None) -> None:
        self._lock = threading.Lock()
        self._on_ready = on_ready
        self._now = _Loading(wish, on_ready)

    @property
    def wish(self) -> BaseWish:
        return self._now.wish

    def load(self) -> None:
        """Loads the wish on a thread of its own, with everything heavy that it imports, where that has not begun."""
        with self._lock:
            if not self._now.started:
                self._now.start()

    def switch(self, wish: BaseWish, refuse: Callable[[], None] = lambda: None) -> None:
        """Loads another base once the one that is there, or its loading, is let go of; returns at once.

        Whoever uses the former one is asked to end and waited for. Raises what `refuse` does and the refusal of a use:
        then nothing has changed.
        """
        with self._lock:
            self._let_go(wish, refuse)
            self._now.start()

    def release(self, refuse: Callable[[], None] = lambda: None) -> None:
        """Lets go of the base, or of its loading, until somebody waits for it; returns at once. Raises as `switch`."""
        with self._lock:
            self._let_go(self._now.wish, refuse)
            threading.Thread(target=self._now.make_room, name="release base", daemon=True).start()

    def _let_go(self, wish: BaseWish, refuse: Callable[[], None]) -> None:
        self._refuse(refuse)
        self._now.stop.set()
        # Nobody begins to use the former one from here on.
        self._now = _Loading(wish, self._on_ready, self._now)

    def refuse_switch(self, refuse: Callable[[], None]) -> None:
        """Raises what `switch` would raise now."""
        with self._lock:
            self._refuse(refuse)

    def _refuse(self, refuse: Callable[[], None]) -> None:
        refuse()
        if refusal := next((use.refusal for use in self._now.uses if use.refusal), None):
            raise refusal.bare()

    @contextmanager
    def use(
        self,
        *,
        wait: bool = False,
        load: bool = False,
        should_stop: Callable[[], bool] = never,
        refusal: StudioError | None = None,
    ) -> Iterator[Use]:
        """The base stays within; no switch is possible meanwhile where there is a `refusal`. `wait`, `load` and
        `should_stop` as in `resident`, and raises as that does."""
        with self.use_if_ready(refusal) as use:
            if use is not None:
                yield use
                return
        self.resident(wait=wait, load=load, should_stop=should_stop)
        with self.use(wait=wait, load=load, should_stop=should_stop, refusal=refusal) as use:
            yield use

    @contextmanager
    def use_if_ready(self, refusal: StudioError | None = None) -> Iterator[Use | None]:
        """As `use`; None where there is no base yet."""
        with self._lock:
            now = self._now
            use = Use(now.resident, now.stop.is_set, refusal) if now.resident is not None else None
            if use is not None:
                now.uses.append(use)
                now.unused.clear()
        try:
            yield use
        finally:
            with self._lock:
                if use is not None:
                    now.uses.remove(use)
                if not now.uses:
                    now.unused.set()

    def status(self) -> BaseStatus:
        return self._now.status()

    def resident(
        self, *, wait: bool = False, load: bool = False, should_stop: Callable[[], bool] = never
    ) -> "Resident":
        """The resident base, for a look at it: whoever works with it takes `use`. With `load` one that was let go of
        comes back first; with `wait` one that is on its way is waited for, too, whichever it is.

        Raises StudioError `base-loading` and `base-released` where there is none, `base-wait-stopped` once
        `should_stop` says so, or what made the loading fail.
        """
        with self._lock:
            now = self._now
            if (wait or load) and not now.started:
                now.again = True
                now.start()
        if wait or (load and now.again):
            self._settle(now, should_stop)
        # A wish that another one has replaced settles, too.
        while now is not self._now:
            now = self._now
            if wait and now.started:
                self._settle(now, should_stop)
            elif now.started:
                raise StudioError("base-loading", source=now.wish.source)
        if now.error is not None:
            raise now.error.bare()
        if now.resident is not None:
            return now.resident
        if now.started:
            raise StudioError("base-loading", source=now.wish.source)
        raise StudioError("base-released", source=now.wish.source)

    def _settle(self, now: _Loading, should_stop: Callable[[], bool]) -> None:
        while not now.settled.wait(_LOOK_SECONDS):
            if should_stop():
                raise StudioError("base-wait-stopped", source=now.wish.source)
