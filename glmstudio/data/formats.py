"""Files of examples, written: context/target JSONL, Alpaca JSON and JSONL, CSV, TSV, Excel, Parquet, the texts in UTF-8
and packed where the name ends with `.gz`. Knows no database and no words; `reading` reads them and what others write.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from glmstudio.data.columns import context_of
from glmstudio.data.example import Example
from glmstudio.data.sheets import Texts, write_parquet, write_xlsx
from glmstudio.errors import StudioError

_SUFFIXES = {
    "context-target": ".jsonl",
    "alpaca-jsonl": ".jsonl",
    "alpaca-json": ".json",
    "csv": ".csv",
    "tsv": ".tsv",
    "xlsx": ".xlsx",
    "parquet": ".parquet",
}
KINDS = tuple(_SUFFIXES)
_DELIMITERS = {"csv": ",", "tsv": "\t"}
# They are packed in their own way.
_PACKED = ("xlsx", "parquet")
_GZ = ".gz"


def suffix(kind: str) -> str:
    """The file suffix of a kind, with its dot."""
    return _SUFFIXES[kind]


def kind_for(path: Path, kind: str | None = None) -> str:
    """The kind to write a file in: `kind`, or that of the file's ending, before `.gz`.

    Raises StudioError `ending-unknown` for an ending that says none where no kind is given, `ending-contradicts` where
    both are there and do not go together.
    """
    packed = path.suffix.lower() == _GZ
    ending = (path.with_suffix("") if packed else path).suffix.lower()
    fitting = [name for name, own in _SUFFIXES.items() if own == ending and not (packed and name in _PACKED)]
    if kind is None and not fitting:
        raise StudioError("ending-unknown", name=path.name, endings=", ".join(dict.fromkeys(_SUFFIXES.values())))
    if kind is not None and (kind not in fitting if fitting else packed and kind in _PACKED):
        raise StudioError("ending-contradicts", name=path.name, kind=kind, ending=suffix(kind))
    return kind or fitting[0]


def write(path: Path, examples: Iterable[Example], kind: str, *, columns: Sequence[str] = ()) -> int:
    """Writes a file, whole or not at all, and returns how many examples it holds.

    `columns` names what else of each example is written, of `KEPT`, for a reader to take it back. Only context/target
    keeps a `raw-context` apart from an input. Raises StudioError `file-not-written`, and those of `write_xlsx`.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    rows = (_values(example, kind) | {name: getattr(example, name) for name in columns} for example in examples)
    names = ("instruction", "input", "output", *columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            if kind == "xlsx":
                written = write_xlsx(file, rows, names, path.name)
            elif kind == "parquet":
                written = write_parquet(file, rows, names)
            else:
                with _text(file, path, kind) as text:
                    written = _write_text(text, rows, names, kind)
        os.replace(aside, path)
    except OSError as error:
        raise StudioError("file-not-written", name=path.name, reason=error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return written


@contextlib.contextmanager
def _text(file: BinaryIO, path: Path, kind: str) -> Iterator[TextIO]:
    """The same file for texts, packed where its name says so."""
    # The same rows give the same bytes: without the time, and without the name that is to be another one.
    packed = path.suffix.lower() == _GZ
    target = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if packed else file
    # The mark at the start tells spreadsheets that a table is UTF-8.
    encoding = "utf-8-sig" if kind in _DELIMITERS else "utf-8"
    text = io.TextIOWrapper(target, encoding=encoding, newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()
        if packed:
            target.close()


def _values(example: Example, kind: str) -> Texts:
    if kind == "context-target":
        return {"context": context_of(example), "target": example.target}
    return {"instruction": example.instruction, "input": example.input, "output": example.target}


def _write_text(file: TextIO, rows: Iterable[Texts], names: Sequence[str], kind: str) -> int:
    if kind in _DELIMITERS:
        return _write_table(file, rows, names, _DELIMITERS[kind])
    return _write_array(file, rows) if kind == "alpaca-json" else _write_lines(file, rows)


def _write_lines(file: TextIO, rows: Iterable[Texts]) -> int:
    written = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        written += 1
    return written


def _write_array(file: TextIO, rows: Iterable[Texts]) -> int:
    written = 0
    for row in rows:
        file.write((",\n  " if written else "[\n  ") + json.dumps(row, ensure_ascii=False))
        written += 1
    file.write("\n]\n" if written else "[]\n")
    return written


def _write_table(file: TextIO, rows: Iterable[Texts], names: Sequence[str], delimiter: str) -> int:
    writer, written = csv.writer(file, delimiter=delimiter), 0
    writer.writerow(names)
    for row in rows:
        writer.writerow(row.values())
        written += 1
    return written
