"""Rows of datasets read and counted in the background: who asks is answered soon, whatever there is to read and count.

Knows no page, no words and no run; what it knows is kept by `KeptRows` and `TokenCounts`.
"""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from glmstudio.data.kept_rows import KeptRows, RowSet, RowsMovedOnError
from glmstudio.errors import StudioError
from glmstudio.models.families.family import Family
from glmstudio.training.token_counts import TokenCounts


@dataclass(frozen=True)
class CountUnderWay:
    """`done` of `total` rows were read and counted, each of which counts by itself; nothing where that is not known."""

    done: int = 0
    total: int = 0

    @property
    def percent(self) -> int:
        return 100 * self.done // max(1, self.total)


class RowCounting:
    """One count at a time, on a thread of its own; two who ask for the same wait for one. No base is held meanwhile,
    only its tokenizer. `version` changes when who was told how far it is would be told something else."""

    def __init__(self, known: KeptRows, counts: TokenCounts) -> None:
        self._known, self.counts = known, counts
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="count rows")
        self._under_way: dict[_Asked, Future[RowSet]] = {}
        self._progress: dict[_Asked, CountUnderWay] = {}
        self._uncounted: tuple[_Asked, RowSet] | None = None
        self._closed = threading.Event()
        self.version = 0

    def rows(
        self, dataset: str, tokenizer: Any, family: Family | None, style: str, seconds: float | None
    ) -> RowSet | CountUnderWay:
        """The dataset's rows that are done, as of now, their tokens counted in that style where there is a tokenizer
        that can; or, where it takes longer than so many seconds, how far it is."""
        asked = _Asked(dataset, tokenizer, family, style)
        until = None if seconds is None else time.monotonic() + seconds
        # A count that had begun before may have missed what was written since; the next one has not.
        for _ in range(2):
            if (rows := self._known_now(asked)) is not None:
                return rows
            with self._lock:
                if (count := self._under_way.get(asked)) is None:
                    count = self._under_way[asked] = self._thread.submit(self._count, asked)
            try:
                rows = count.result(None if until is None else max(0.0, until - time.monotonic()))
            except TimeoutError:
                with self._lock:
                    if asked in self._under_way:
                        return self._progress.setdefault(asked, CountUnderWay())
                # It has ended this moment.
                rows = count.result()
        return rows

    def unchanged(self, dataset: str, rows: RowSet) -> bool:
        """Whether no row of the dataset has changed since `rows` gave these."""
        return self._known.latest(dataset) is rows

    @property
    def active(self) -> bool:
        """Whether somebody was told how far it is."""
        return bool(self._progress)

    def close(self) -> None:
        """Ends what is under way, soon."""
        self._closed.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _known_now(self, asked: "_Asked") -> RowSet | None:
        rows = self._known.latest(asked.dataset)
        if rows is None or asked.tokenizer is None or self._uncounted == (asked, rows):
            return rows
        return rows if self.counts.known(asked.tokenizer, asked.family, rows, asked.style) else None

    def _count(self, asked: "_Asked") -> RowSet:
        def on_read(done: int, total: int) -> None:
            self._tell(asked, done, 2 * total)

        def on_counted(done: int, total: int) -> None:
            self._tell(asked, total + done, 2 * total)

        try:
            while True:
                rows = self._known.look(asked.dataset, on_read)
                # Made here, while nobody waits.
                rows.findings  # noqa: B018
                if asked.tokenizer is None:
                    return rows
                try:
                    self.counts.count(asked.tokenizer, asked.family, rows, asked.style, on_counted)
                except RowsMovedOnError:
                    continue
                except StudioError:
                    # The check tells it.
                    self._uncounted = asked, rows
                return rows
        finally:
            with self._lock:
                del self._under_way[asked]
                self.version += self._progress.pop(asked, None) is not None

    def _tell(self, asked: "_Asked", done: int, total: int) -> None:
        if self._closed.is_set():
            raise _ClosedError
        with self._lock:
            if asked in self._progress:
                self._progress[asked] = CountUnderWay(done, total)
                self.version += 1


@dataclass(frozen=True)
class _Asked:
    dataset: str
    tokenizer: Any
    family: Family | None
    style: str


class _ClosedError(Exception):
    """Nobody waits for the count any more."""
