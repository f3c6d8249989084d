"""A frozen copy of the rows that a run trains on, named by what is in it. Knows files; knows no database and no run."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from glmstudio.data.columns import context_of
from glmstudio.data.example import SPLITS, Example, join_context
from glmstudio.data.quality import RAW_CONTEXT_TAG
from glmstudio.errors import StudioError

_ABOUT = "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """`id` is the first 16 hex digits of the SHA-256 of `train.jsonl`, a NUL and `dev.jsonl` in `folder`. With `new`
    the folder was not there before the rows were frozen."""

    id: str
    folder: Path
    train: list[Example]
    dev: list[Example]
    new: bool = field(default=False, compare=False)


def freeze(train: Iterable[Example], dev: Iterable[Example], snapshots: Path) -> Snapshot:
    """Writes the rows into `snapshots/<id>`, aside first and then moved; the same rows give the same folder.

    Ids, annotators and times are no part of it: they do not change what is learned.
    """
    rows = {"train": list(train), "dev": list(dev)}
    files = _files(rows)
    snapshot_id = _identity(files)
    folder = snapshots / snapshot_id
    new = not folder.exists()
    if new:
        counts = {split: len(rows[split]) for split in SPLITS}
        about = {"id": snapshot_id, **counts, "created_at": datetime.now(UTC).isoformat(timespec="seconds")}
        aside = snapshots / f".{snapshot_id}.{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
            for split, content in files.items():
                (aside / f"{split}.jsonl").write_bytes(content)
            (aside / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            new = _moved(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Snapshot(snapshot_id, folder, **rows, new=new)


def load(folder: Path) -> Snapshot:
    """The rows of a frozen folder, without ids. Raises StudioError `snapshot-missing`, `snapshot-changed`."""
    try:
        files = {split: (folder / f"{split}.jsonl").read_bytes() for split in SPLITS}
        snapshot_id = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["id"]
    except FileNotFoundError as error:
        raise StudioError("snapshot-missing", folder=str(folder), file=Path(error.filename).name) from error
    if _identity(files) != snapshot_id:
        raise StudioError("snapshot-changed", folder=str(folder))
    rows = {split: [_row(line, split) for line in files[split].decode().split("\n")[:-1]] for split in SPLITS}
    return Snapshot(snapshot_id, folder, **rows)


def find(snapshot_id: str, *places: Path) -> Snapshot:
    """The rows that were frozen under that id in the first of the folders that has them. Raises as `load` does."""
    folders = [place / snapshot_id for place in places]
    return load(next((folder for folder in folders if folder.is_dir()), folders[0]))


def identity(train: Iterable[Example], dev: Iterable[Example]) -> str:
    """The id that the rows would be frozen under."""
    return _identity(_files({"train": train, "dev": dev}))


def _files(rows: Mapping[str, Iterable[Example]]) -> dict[str, bytes]:
    return {split: "".join(map(_line, rows[split])).encode() for split in SPLITS}


def _identity(files: dict[str, bytes]) -> str:
    return hashlib.sha256(b"\0".join(files[split] for split in SPLITS)).hexdigest()[:16]


def _moved(aside: Path, folder: Path) -> bool:
    """Whether it came to its place: a folder that is there now was frozen from the same rows in the meantime, and one
    copy is enough."""
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.exists():
            raise
        return False
    return True


def _line(example: Example) -> str:
    row = {
        "context": context_of(example),
        "target": example.target,
        "instruction": example.instruction,
        "input": example.input,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _row(line: str, split: str) -> Example:
    row = json.loads(line)
    instruction, input = row["instruction"], row["input"]
    tags = () if row["context"] == join_context(instruction, input) else (RAW_CONTEXT_TAG,)
    return Example(instruction, input, row["target"], split=split, tags=tags)
