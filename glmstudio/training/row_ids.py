"""The ids that a run's training rows have in the Annotate table: rows are frozen without them, so that the same rows
are the same snapshot. Knows a run's folder as a place for a file."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from glmstudio.data.example import Example
from glmstudio.data.snapshot import Snapshot

ROW_IDS = "row_ids.json"


def keep_row_ids(folder: Path, rows: Sequence[Example]) -> None:
    """Writes the ids into the folder of a run, where the rows have any: those of a file have none."""
    if rows and all(row.id is not None for row in rows):
        (folder / ROW_IDS).write_text(json.dumps([row.id for row in rows]), encoding="utf-8")


def with_row_ids(folder: Path, frozen: Snapshot) -> Snapshot:
    """The rows with the ids that were kept for them."""
    file = folder / ROW_IDS
    if not file.exists():
        return frozen
    ids = json.loads(file.read_text(encoding="utf-8"))
    return dataclasses.replace(
        frozen, train=[dataclasses.replace(row, id=id) for row, id in zip(frozen.train, ids, strict=True)]
    )


def row_ids(rows: Sequence[Example]) -> list[int]:
    """What a person is told of each row: its id, or its 1-based place."""
    return [row.id or place for place, row in enumerate(rows, start=1)]
