"""Files of examples, written: context/target JSONL, Alpaca JSON and JSONL, CSV, all in UTF-8. Knows no database and no
words; `reading` reads them and what others write.
"""

import contextlib
import csv
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from glmstudio.data.columns import context_of
from glmstudio.data.example import Example
from glmstudio.errors import StudioError

_SUFFIXES = {"context-target": ".jsonl", "alpaca-jsonl": ".jsonl", "alpaca-json": ".json", "csv": ".csv"}
KINDS = tuple(_SUFFIXES)


def suffix(kind: str) -> str:
    """The file suffix of a kind, with its dot."""
    return _SUFFIXES[kind]


def kind_for(path: Path, kind: str | None = None) -> str:
    """The kind to write a file in: `kind`, or that of the file's ending.

    Raises StudioError `ending-unknown` for an ending that says none where no kind is given, `ending-contradicts` where
    both are there and do not go together.
    """
    ending = path.suffix.lower()
    fitting = [name for name, own in _SUFFIXES.items() if own == ending]
    if kind is None and not fitting:
        raise StudioError("ending-unknown", name=path.name, endings=", ".join(dict.fromkeys(_SUFFIXES.values())))
    if kind is not None and fitting and kind not in fitting:
        raise StudioError("ending-contradicts", name=path.name, kind=kind, ending=suffix(kind))
    return kind or fitting[0]


def write(path: Path, examples: Iterable[Example], kind: str, *, columns: Sequence[str] = ()) -> int:
    """Writes a file, whole or not at all, and returns how many examples it holds.

    `columns` names what else of each example is written, of `KEPT`, for a reader to take it back. Only context/target
    keeps a `raw-context` apart from an input. Raises StudioError `file-not-written`.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    rows = (_values(example, kind) | {name: getattr(example, name) for name in columns} for example in examples)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The mark at the start tells spreadsheets that a CSV is UTF-8.
        with aside.open("x", encoding="utf-8-sig" if kind == "csv" else "utf-8", newline="") as file:
            if kind == "csv":
                written = _write_csv(file, rows, columns)
            else:
                written = {"alpaca-json": _write_array}.get(kind, _write_lines)(file, rows)
        os.replace(aside, path)
    except OSError as error:
        raise StudioError("file-not-written", name=path.name, reason=error.strerror) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return written


def _values(example: Example, kind: str) -> dict[str, str]:
    if kind == "context-target":
        return {"context": context_of(example), "target": example.target}
    return {"instruction": example.instruction, "input": example.input, "output": example.target}


def _write_lines(file: TextIO, rows: Iterable[dict[str, str]]) -> int:
    written = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        written += 1
    return written


def _write_array(file: TextIO, rows: Iterable[dict[str, str]]) -> int:
    written = 0
    for row in rows:
        file.write((",\n  " if written else "[\n  ") + json.dumps(row, ensure_ascii=False))
        written += 1
    file.write("\n]\n" if written else "[]\n")
    return written


def _write_csv(file: TextIO, rows: Iterable[dict[str, str]], columns: Sequence[str]) -> int:
    writer, written = csv.writer(file), 0
    writer.writerow(("instruction", "input", "output", *columns))
    for row in rows:
        writer.writerow(row.values())
        written += 1
    return written
