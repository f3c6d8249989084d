"""Files into the store: a look at what a file holds, then its good rows; the demo rows. Knows no page and no words."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.data.example import SPLITS, Example, Reject
from glmstudio.data.known_rows import KnownRows
from glmstudio.data.reading.reader import ReadOptions, Told, read
from glmstudio.workspace import repository_root

if TYPE_CHECKING:
    from glmstudio.data.store import Store

SAMPLE_ROWS = 5


@dataclass(frozen=True)
class ImportOptions:
    """Where the rows go, and what a person says about the file. `split` is that of rows that do not say theirs; with
    `again` rows come in that the dataset has already."""

    dataset: str
    split: str = "train"
    reading: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    again: bool = False


@dataclass(frozen=True)
class ImportPreview:
    """What a file holds: its kind, how many rows came through, the rejected lines, the first good rows.

    `kinds` counts the rows that came through by (split, status), `known` those that were left out because the dataset
    has them; `told` is what the reading has to say beside them. `import_id` is that of `ImportRecord` once the rows
    have come in.
    """

    kind: str
    good: int
    rejects: list[Reject]
    sample: list[Example]
    told: Told
    kinds: Counter[tuple[str, str]]
    known: int = 0
    import_id: int | None = None


class _Intake:
    """The rows of a file on their way: counted, and parted from those that do not come in."""

    def __init__(self, store: "Store", path: Path, options: ImportOptions) -> None:
        self._reading = read(path, dataset=options.dataset, split=options.split, options=options.reading)
        self._known = KnownRows() if options.again else store.known(options.dataset)
        self._left = 0
        self._rejects: list[Reject] = []
        self.kinds: Counter[tuple[str, str]] = Counter()

    def good_rows(self) -> Iterator[Example]:
        for row in self._reading:
            if isinstance(row, Reject):
                self._rejects.append(row)
            elif self._known.has(row):
                self._left += 1
            else:
                self.kinds[row.split, row.status] += 1
                yield row

    def found(self, sample: list[Example], import_id: int | None = None) -> ImportPreview:
        reading, kinds = self._reading, self.kinds
        return ImportPreview(
            reading.kind, kinds.total(), self._rejects, sample, reading.told, kinds, self._left, import_id
        )


def preview(store: "Store", path: Path, options: ImportOptions) -> ImportPreview:
    """Reads the whole file and keeps nothing."""
    intake, sample = _Intake(store, path, options), []
    for row in intake.good_rows():
        if len(sample) < SAMPLE_ROWS:
            sample.append(row)
    return intake.found(sample)


def take(
    store: "Store",
    path: Path,
    options: ImportOptions,
    person: str = "",
    on_progress: Callable[[int], None] = lambda rows: None,
) -> ImportPreview:
    """The good rows that the dataset does not have come in as one import. `on_progress` hears of every thousandth."""
    intake = _Intake(store, path, options)

    def counted() -> Iterator[Example]:
        for rows, row in enumerate(intake.good_rows(), start=1):
            yield row
            if rows % 1000 == 0:
                on_progress(rows)

    done = store.import_rows(counted(), dataset=options.dataset, file=path.name, person=person)
    return intake.found([], done.id if done else None)


def take_demo(store: "Store", dataset: str) -> None:
    """The rows that ship with the program, all or none."""
    rows = (
        row
        for split in SPLITS
        for row in read(repository_root() / "data" / "demo" / f"{split}.jsonl", dataset=dataset, split=split)
    )
    store.add_many(dataclasses.replace(row, source="demo") for row in rows if isinstance(row, Example))
