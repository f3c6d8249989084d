"""Metric records of a run: appended to a JSONL file as whole lines, read back by offset. Knows files, no training."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from errno import ENOSPC
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

KINDS = ("train", "eval", "event", "system")


@dataclass(frozen=True)
class MetricRecord:
    """One line of `metrics.jsonl`. `step` counts optimizer steps, `epoch` is a fraction, `time` seconds since 1970.

    `values` by kind. train: `loss` (each step's mean over its target tokens, averaged over the steps since the record
    before), `learning_rate`, `grad_norm` (of the last step, before clipping), `tokens_per_second` (real tokens, no
    padding), `target_tokens_per_second`, `steps_per_second`. eval: `loss` (mean over the dev rows' target tokens).
    event: `code` and its details. system: `memory_bytes`.
    """

    kind: str
    step: int
    epoch: float
    time: float
    values: dict[str, Any] = field(default_factory=dict)


class MetricWriter:
    """Appends records to a file. A record is one write of one whole line, so a reader sees all of it or nothing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, kind: str, *, step: int, epoch: float, **values: Any) -> None:
        """Appends one record with the time of now."""
        self.write_together((kind, values), step=step, epoch=epoch)

    def write_together(self, *records: tuple[str, dict[str, Any]], step: int, epoch: float) -> None:
        """Appends records, each (kind, values), all of them or none."""
        now = round(time.time(), 3)
        lines = b"".join(_line(MetricRecord(kind, step, round(epoch, 6), now, values)) for kind, values in records)
        # The last block of a disk takes a part, and only what comes after it is an error.
        if self._file.write(lines) < len(lines):
            raise OSError(ENOSPC, os.strerror(ENOSPC), self._file.name)

    def close(self) -> None:
        self._file.close()


def read_from(path: Path, offset: int = 0) -> tuple[list[MetricRecord], int]:
    """The whole records after `offset` bytes, and the offset to go on from; nothing for a file that is not there yet.

    Lines that are no records are left out: a full disk tears them.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            whole, newline, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], offset
    lines = whole.split(b"\n") if newline else []
    return [record for line in lines if (record := _parse(line)) is not None], offset + len(whole) + len(newline)


def cut_back(path: Path, step: int) -> None:
    """Leaves the records up to `step`, in a new file that takes the place of the old one, where there is one."""
    if not path.exists():
        return
    records, _ = read_from(path)
    new = path.with_suffix(".jsonl.new")
    new.write_bytes(b"".join(_line(record) for record in records if record.step <= step))
    os.replace(new, path)


def _line(record: MetricRecord) -> bytes:
    return (json.dumps(asdict(record), ensure_ascii=False) + "\n").encode()


_KIND = TypeAdapter(MetricRecord)


def _parse(line: bytes) -> MetricRecord | None:
    try:
        return _KIND.validate_json(line, strict=True)
    except ValidationError:
        return None
