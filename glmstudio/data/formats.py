"""Files of examples, in and out: context/target JSONL, Alpaca JSON and JSONL, CSV. Knows no database and no words.

JSONL and CSV stream line by line. UTF-8 (with BOM or without), UTF-16 with BOM and GB18030 are read; UTF-8 is written.
"""

import codecs
import contextlib
import csv
import json
import os
import re
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from glmstudio.data.columns import context_of, example_of, field_of
from glmstudio.data.example import Example, Reject
from glmstudio.data.quality import is_storable
from glmstudio.errors import StudioError

_SUFFIXES = {"context-target": ".jsonl", "alpaca-jsonl": ".jsonl", "alpaca-json": ".json", "csv": ".csv"}
KINDS = tuple(_SUFFIXES)
_DETECT_LINES = 50
_DELIMITERS = (",", "\t", ";")
_BLANKS = re.compile(r"\s*")
# Inside a text a tab or a line break without its backslash does no harm, so it is read.
_DECODER = json.JSONDecoder(strict=False)
# Bytes that cannot be decoded become a lone surrogate, by which their line is known and rejected.
_MARK = "glmstudio-mark"
codecs.register_error(_MARK, lambda error: ("\udcff", error.end))


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


def detect(path: Path) -> str:
    """The kind of a file, by what is in it: one of `KINDS`.

    Raises StudioError `file-missing`, `file-empty`, `unknown-format`.
    """
    return _detect(Path(path), _encoding(Path(path)))


def read(path: Path, *, dataset: str, split: str = "train", kind: str | None = None) -> "Reading":
    """Examples and rejects in the order of the file; `kind` is detected when it is not given.

    Raises StudioError as `detect` does, at once, and `column-missing` for a CSV without prompt or target.
    """
    return Reading(Path(path), dataset, split, kind)


class Reading(Iterator[Example | Reject]):
    """The rows of one file. `ignored` counts, by column, the values read so far that an example has no place for."""

    def __init__(self, path: Path, dataset: str, split: str, kind: str | None) -> None:
        encoding = _encoding(path)
        self.kind = kind or _detect(path, encoding)
        self.ignored: Counter[str] = Counter()
        rows = {"alpaca-json": _array_rows, "csv": _csv_rows}.get(self.kind, _line_rows)
        self._rows = rows(path, encoding)
        prompt_field = "context" if self.kind == "context-target" else "instruction"
        self._given = {"dataset": dataset, "split": split, "prompt_field": prompt_field, "ignored": self.ignored}

    def __next__(self) -> Example | Reject:
        row = next(self._rows)
        return row if isinstance(row, Reject) else example_of(row[0], row[1], **self._given)


Row = tuple[int, Iterable[tuple[str, Any]]] | Reject


def write(path: Path, examples: Iterable[Example], kind: str, *, columns: Sequence[str] = ()) -> int:
    """Writes a file, whole or not at all, and returns how many examples it holds.

    `columns` names what else of each example is written, of `KEPT`, for `read` to take it back. Only context/target
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


# Finding out what a file is


def _encoding(path: Path) -> str:
    """UTF-8 unless most of the lines that could tell are no UTF-8: a few broken lines are rejected one by one."""
    telling = broken = 0
    try:
        with path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                return "utf-16"
            file.seek(0)
            for line in file:
                if line.isascii():
                    continue
                telling += 1
                try:
                    line.decode()
                except UnicodeDecodeError:
                    broken += 1
    except OSError as error:
        raise StudioError("file-missing", name=path.name, reason=error.strerror) from error
    return "gb18030" if broken * 2 > telling else "utf-8-sig"


def _open(path: Path, encoding: str, newline: str) -> TextIO:
    return path.open(encoding=encoding, errors=_MARK, newline=newline)


def _detect(path: Path, encoding: str) -> str:
    with _open(path, encoding, "\n") as file:
        lines = list(islice((line for line in file if line.strip()), _DETECT_LINES))
    if not lines:
        raise StudioError("file-empty", name=path.name)
    if re.match(r"\s*\[\s*(\{|\]|\Z)", "".join(lines)):
        return "alpaca-json"
    for line in lines:
        row = _decoded(line)
        fields = {field_of(name) for name in row} if isinstance(row, dict) else set()
        if fields >= {"context"} and "instruction" not in fields:
            return "context-target"
        if fields & {"instruction", "input", "target"}:
            return "alpaca-jsonl"
    if _delimiter(path, encoding):
        return "csv"
    raise StudioError("unknown-format", name=path.name, expected="context/target, instruction/input/output")


def _decoded(text: str) -> Any:
    """The value of one line; the JSONDecodeError itself where it is none."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return error
    except (ValueError, RecursionError):
        return json.JSONDecodeError("", text, 0)


def _delimiter(path: Path, encoding: str) -> str | None:
    """The character that parts the first line into names of which one at least is known."""
    csv.field_size_limit(2**31 - 1)
    for delimiter in _DELIMITERS:
        with _open(path, encoding, "") as file:
            if any(map(field_of, next(csv.reader(file, delimiter=delimiter), []))):
                return delimiter
    return None


# Reading


def _line_rows(path: Path, encoding: str) -> Iterator[Row]:
    with _open(path, encoding, "\n") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            if not is_storable(text):
                yield Reject(line, "encoding", {"encoding": _shown(encoding)})
                continue
            row = _decoded(text.rstrip())
            if isinstance(row, json.JSONDecodeError):
                yield Reject(line, "line-not-json", {"column": row.colno})
            else:
                yield _object(line, row)


def _object(line: int, row: Any) -> Row:
    return (line, row.items()) if isinstance(row, dict) else Reject(line, "line-not-object")


def _shown(encoding: str) -> str:
    return encoding.removesuffix("-sig").upper()


def _array_rows(path: Path, encoding: str) -> Iterator[Row]:
    """One row a member, with the line where it begins, of one list or of several behind each other; from a syntax error
    on nothing can be trusted."""
    with _open(path, encoding, "\n") as file:
        text = file.read()
    position, line, counted, inside = 0, 1, 0, False
    while True:
        position = _BLANKS.match(text, position).end()
        line, counted = line + text.count("\n", counted, position), position
        next_one = text[position : position + 1]
        if not inside:
            if not next_one:
                return
            if next_one != "[":
                yield _broken_array(text, position, "json-behind")
                return
            position, inside = position + 1, True
            continue
        if next_one == "]":
            position, inside = position + 1, False
            continue
        try:
            row, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield _broken_array(text, getattr(error, "pos", position))
            return
        yield _object(line, row)
        position = _BLANKS.match(text, position).end()
        if text[position : position + 1] not in (",", "]"):
            yield _broken_array(text, position)
            return
        position += text[position] == ","


def _broken_array(text: str, position: int, code: str = "json-syntax") -> Reject:
    error = json.JSONDecodeError("", text, position)
    return Reject(error.lineno, code, {"column": error.colno})


class _Lines(Iterator[str]):
    """Lines of a CSV that can be given back: a quote that is never closed costs one line, not the rest of the file."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._given_back, self._taken = file, deque(), []
        self.done = 0

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._file)
        self._taken.append(line)
        return line

    def settle(self, *, only_first: bool = False) -> None:
        """The lines taken for a record are done with, or only the first of them."""
        if only_first:
            self._given_back.extendleft(reversed(self._taken[1:]))
            del self._taken[1:]
        self.done += len(self._taken)
        self._taken.clear()


def _csv_rows(path: Path, encoding: str) -> Iterator[Row]:
    delimiter = _delimiter(path, encoding)
    with _open(path, encoding, "") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = next(reader)
        while not header[-1]:
            header.pop()
        _require_columns(path, header)
        while True:
            lines.settle()
            line = lines.done + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                lines.settle(only_first=True)
                yield Reject(line, "csv-syntax")
                continue
            if any(cells):
                yield _cells(line, header, cells, encoding)


def _cells(line: int, header: list[str], cells: list[str], encoding: str) -> Row:
    if any(cells[len(header) :]):
        return Reject(line, "csv-columns", {"expected": len(header), "found": len(cells)})
    if not all(map(is_storable, cells)):
        return Reject(line, "encoding", {"encoding": _shown(encoding)})
    return line, list(zip(header, cells, strict=False))


def _require_columns(path: Path, header: list[str]) -> None:
    fields = set(map(field_of, header))
    for field, any_of in (("instruction", {"context", "instruction", "input"}), ("target", {"target"})):
        if not fields & any_of:
            raise StudioError("column-missing", name=path.name, column=field, found=", ".join(header))
