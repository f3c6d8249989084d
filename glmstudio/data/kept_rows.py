"""The rows of datasets that are done, known without their texts and looked at again only where they have changed.

Knows a store; knows no tokenizer and no run.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from glmstudio.data.example import Example
from glmstudio.data.quality import Finding
from glmstudio.data.row_facts import RowFacts, content_of, facts_of, findings_of
from glmstudio.data.row_reader import RowReader

# Of so many datasets the facts are kept, about 400 bytes a row.
DATASETS_KEPT = 4
Texts = tuple[str, str, str]


class RowsMovedOnError(Exception):
    """Rows have changed since they were looked at: look again."""


@dataclass(frozen=True, eq=False)
class RowSet:
    """Rows that a run would train on, the first `train` of `facts`, and dev rows behind them. `texts` gives the
    instruction, input and target of some, by their numbers from 0; it raises RowsMovedOnError where one has changed."""

    facts: Sequence[RowFacts]
    train: int
    texts: Callable[[Sequence[int]], list[Texts]]

    @classmethod
    def of(cls, train: Sequence[Example], dev: Sequence[Example]) -> "RowSet":
        """Of rows that somebody holds."""
        rows = [*train, *dev]
        facts = [facts_of(row, place) for place, row in enumerate(rows, start=1)]
        return cls(facts, len(train), lambda numbers: [_texts(rows[number]) for number in numbers])

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def dev(self) -> int:
        return len(self.facts) - self.train

    def differing(self, former: "RowSet") -> int:
        """How many rows are only in one of them, or have other texts or another split there; rows are told by id."""
        here, there = ({row.place: (row.split, row.content) for row in rows.facts} for rows in (self, former))
        return sum(here.get(place) != there.get(place) for place in here.keys() | there.keys())

    @cached_property
    def findings(self) -> list[Finding]:
        """As `findings_of`."""
        return findings_of(self.facts)


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    # By id, with the revision.
    facts: dict[int, tuple[int, RowFacts]] = field(default_factory=dict)
    latest: tuple[int, RowSet] | None = None


class KeptRows:
    """Safe to call from several threads: who looks at a dataset that somebody looks at waits, and finds it done."""

    def __init__(self, store: RowReader) -> None:
        self._store, self._lock = store, threading.Lock()
        self._datasets: OrderedDict[str, _Kept] = OrderedDict()

    def look(self, dataset: str, on_progress: Callable[[int, int], None] = lambda done, total: None) -> RowSet:
        """The rows of the dataset that are done; the same object as long as none has changed. `on_progress` hears how
        many of those that are new have been read."""
        with self._lock:
            known = self._datasets.setdefault(dataset, _Kept())
            self._datasets.move_to_end(dataset)
            while len(self._datasets) > DATASETS_KEPT:
                self._datasets.popitem(last=False)
        with known.lock:
            if known.latest is None or known.latest[0] != self._number(dataset):
                known.latest = self._looked(dataset, known, on_progress)
            return known.latest[1]

    def latest(self, dataset: str) -> RowSet | None:
        """What `look` would give without reading a row; None where it would have to."""
        known = self._datasets.get(dataset)
        latest = known.latest if known is not None else None
        return latest[1] if latest is not None and latest[0] == self._number(dataset) else None

    def _number(self, dataset: str) -> int:
        return self._store.changes.all().get(dataset, 0)

    def _looked(self, dataset: str, known: _Kept, on_progress: Callable[[int, int], None]) -> tuple[int, RowSet]:
        number, revisions = self._store.revisions(dataset)
        former = known.facts
        facts = {row_id: former[row_id] for row_id, revision in revisions if former.get(row_id, (0,))[0] == revision}
        new = [row_id for row_id, _ in revisions if row_id not in facts]
        for done, row in enumerate(self._store.rows(new), start=1):
            # What changes while it is read is read again by the next look.
            if (row.dataset, row.status) == (dataset, "done"):
                facts[row.id] = row.revision, facts_of(row, row.id)
            if done % 1000 == 0:
                on_progress(done, len(new))
        known.facts = facts
        ordered = [facts[row_id][1] for row_id, _ in revisions if row_id in facts]
        train, dev = ([row for row in ordered if row.split == split] for split in ("train", "dev"))
        rows = RowSet([*train, *dev], len(train), lambda numbers: self._texts(rows, numbers))
        return number, rows

    def _texts(self, rows: RowSet, numbers: Sequence[int]) -> list[Texts]:
        wanted = [rows.facts[number] for number in numbers]
        found = {row.id: _texts(row) for row in self._store.rows([row.place for row in wanted])}
        if any(row.place not in found or content_of(found[row.place]) != row.content for row in wanted):
            raise RowsMovedOnError
        return [found[row.place] for row in wanted]


def _texts(row: Example) -> Texts:
    return row.instruction, row.input, row.target
