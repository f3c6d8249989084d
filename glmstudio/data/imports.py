"""Files into the store: a look at what a file holds, then its good rows; the demo rows. Knows no page and no words."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.data.example import SPLITS, Example, Reject
from glmstudio.data.reading.reader import ReadOptions, Told, read
from glmstudio.workspace import repository_root

if TYPE_CHECKING:
    from glmstudio.data.store import Store

SAMPLE_ROWS = 5


@dataclass(frozen=True)
class ImportPreview:
    """What a file holds: its kind, how many rows came through, the rejected lines, the first good rows.

    `kinds` counts the rows that came through by (split, status); `told` is what the reading has to say beside them.
    `import_id` is that of `ImportRecord` once the rows have come in.
    """

    kind: str
    good: int
    rejects: list[Reject]
    sample: list[Example]
    told: Told
    kinds: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    import_id: int | None = None


def preview(path: Path, dataset: str, split: str, options: ReadOptions | None = None) -> ImportPreview:
    """Reads the whole file and keeps nothing."""
    reading = read(path, dataset=dataset, split=split, options=options)
    rejects, sample, kinds = [], [], Counter()
    for row in reading:
        if isinstance(row, Reject):
            rejects.append(row)
            continue
        kinds[row.split, row.status] += 1
        if len(sample) < SAMPLE_ROWS:
            sample.append(row)
    return ImportPreview(reading.kind, kinds.total(), rejects, sample, reading.told, kinds)


def take(
    store: "Store",
    path: Path,
    dataset: str,
    split: str,
    person: str = "",
    on_progress: Callable[[int], None] = lambda rows: None,
    options: ReadOptions | None = None,
) -> ImportPreview:
    """The good rows come in as one import, the bad lines are reported. `on_progress` hears of every thousandth row."""
    reading = read(path, dataset=dataset, split=split, options=options)
    rejects: list[Reject] = []
    kinds: Counter[tuple[str, str]] = Counter()

    def good_rows() -> Iterator[Example]:
        for row in reading:
            if isinstance(row, Reject):
                rejects.append(row)
            else:
                kinds[row.split, row.status] += 1
                yield row
                if (rows := kinds.total()) % 1000 == 0:
                    on_progress(rows)

    done = store.import_rows(good_rows(), dataset=dataset, file=path.name, person=person)
    return ImportPreview(reading.kind, done.rows, rejects, [], reading.told, kinds, done.id)


def take_demo(store: "Store", dataset: str) -> None:
    """The rows that ship with the program, all or none."""
    rows = (
        row
        for split in SPLITS
        for row in read(repository_root() / "data" / "demo" / f"{split}.jsonl", dataset=dataset, split=split)
    )
    store.add_many(dataclasses.replace(row, source="demo") for row in rows if isinstance(row, Example))
