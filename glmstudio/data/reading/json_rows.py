"""Rows of a JSON file: a row a line, or values in any layout: one list or several, objects behind each other, rows that
lie under a name, by splits, by row numbers or by columns. Knows no encoding and not what the names mean.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from glmstudio.data.conversations import are_turns
from glmstudio.data.example import Reject, split_of_name
from glmstudio.data.labelled import is_task
from glmstudio.data.reading.encodings import BROKEN
from glmstudio.data.reading.json_text import DECODER, LONGEST, JsonBroken, JsonText
from glmstudio.data.reading.rows import RawRow, Row

_REASONS = {
    "quotes": "json-quotes",
    "punctuation": "json-punctuation",
    "comment": "json-comment",
    "cut": "json-cut",
    "syntax": "json-broken",
}
# What begins like a list of rows and goes on for longer is one.
_LONGEST_ROW = 1 << 20
_BLANK = " \t\r\n\ufeff"
_BEGINS = re.compile(r"(?:\s|\ufeff|(?://|#)[^\n]*\n|/\*.*?\*/)*(?:\{|\[\s*(?:[\[{\]/#]|$))", re.DOTALL)
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LIST_OF_ROWS = re.compile("\\[\\s*[{\\]]")
_OPENS_ROWS = re.compile(
    rf'\{{\s*(?:{_TEXT}\s*:\s*(?:{_TEXT}|[\w.+-]+)\s*,\s*)*"(?P<name>(?:[^"\\]|\\.)*)"\s*:\s*(?:\[\s*\{{|\{{\s*")'
)
Cells = Iterable[tuple[str, Any]]
IsField = Callable[[str], bool]


def line_rows(lines: Iterable[str], is_field: IsField, encoding: str) -> Iterator[Row]:
    """One row a line; a line that holds several, or none that is whole, is read as values. `encoding` is what a line is
    said not to be."""
    lines, number, line, following = iter(lines), 0, 0, ""
    while text := following or next(lines, ""):
        line, following = line + 1, ""
        stripped = text.strip(_BLANK)
        if not stripped:
            continue
        if stripped in "{[":
            following = next(lines, "")
            if not isinstance(_decoded(following), dict):
                # An object over several lines: from here on the file has no row a line.
                yield from value_rows(chain([text, following], lines), is_field, line, number)
                return
        number += 1
        try:
            row = DECODER.decode(stripped)
        except (ValueError, RecursionError):
            if BROKEN in text:
                yield Reject(line, "line-broken", {"encoding": encoding}, number)
                continue
        else:
            if isinstance(row, dict):
                yield RawRow(line, number, row.items())
                continue
            if are_turns(row):
                yield RawRow(line, number, [("messages", row)])
                continue
            if row != [] and not _is_list_of_objects(row):
                yield Reject(line, "line-not-object", row=number)
                continue
        for found in value_rows(iter([stripped]), is_field, line, number - 1):
            number = max(found.row, number)
            # The line ends there, not the file.
            is_end = isinstance(found, Reject) and found.code in ("json-cut", "json-syntax")
            yield replace(found, code="json-broken") if is_end else found


def value_rows(
    blocks: Iterator[str], is_field: IsField, line: int = 1, row: int = 0, left: Counter[str] | None = None
) -> Iterator[Row]:
    """The rows of a file in any layout. `line` is that of its first block, `row` the number before its first row;
    `left` counts, by name, the values beside lists of rows."""
    return _Values(JsonText(blocks, line), is_field, row, Counter() if left is None else left).rows()


class _Values:
    """The state of one reading: `_inside` are the lists and objects of rows that are open, with their splits."""

    def __init__(self, text: JsonText, is_field: IsField, row: int, left: Counter[str]) -> None:
        self._text, self._is_field, self._row, self._left = text, is_field, row, left
        self._inside: list[tuple[str, str]] = []
        self._first_name = ""

    def rows(self) -> Iterator[Row]:
        text = self._text
        while char := text.next_char():
            kind, split = self._inside[-1] if self._inside else ("", "")
            line, column = text.place(text.position)
            if char in "/#" and text.skip_comment():
                yield Reject(line, "json-comment", {"column": column})
            elif char == "," or (char == "]" and kind == "[") or (char == "}" and kind == "{"):
                text.position += 1
                if char != ",":
                    self._inside.pop()
            elif not kind and char == "[":
                text.position += 1
                self._inside.append(("[", ""))
            elif kind == "{":
                yield from self._named(split)
            elif not kind and char == "{":
                yield from self._top_object()
            else:
                yield from self._member(split)
        if self._inside:
            line, column = text.place(text.position)
            yield Reject(line, "json-cut", {"column": column})

    def _member(self, split: str) -> Iterator[Row]:
        """A value where a row is wanted."""
        text = self._text
        line, column = text.place(text.position)
        try:
            value = text.value()
        except JsonBroken as error:
            yield from self._broken(error, split)
            return
        self._row += 1
        if isinstance(value, dict):
            self._first_name = next(iter(value), "")
            yield RawRow(line, self._row, value.items(), split)
        elif are_turns(value):
            yield RawRow(line, self._row, [("messages", value)], split)
        elif self._inside:
            yield Reject(line, "line-not-object", row=self._row)
        else:
            yield Reject(line, "json-behind", {"column": column}, self._row)

    def _broken(self, error: JsonBroken, split: str) -> Iterator[Row]:
        text = self._text
        begins, _ = text.place(text.position)
        line, column = text.place(error.position)
        self._row += 1
        try:
            value = text.mended()
        except JsonBroken:
            goes_on = text.go_on(self._first_name)
            code = _REASONS[error.why] if goes_on or error.why != "syntax" else "json-syntax"
            if not goes_on:
                self._inside.clear()
            yield Reject(line, code, {"column": column}, self._row)
            return
        if isinstance(value, dict):
            yield RawRow(begins, self._row, value.items(), split)
        else:
            yield Reject(begins, "line-not-object", row=self._row)

    def _top_object(self) -> Iterator[Row]:
        """An object that is a row, or holds rows."""
        text = self._text
        line, _ = text.place(text.position)
        opens_rows = self._opens_rows()
        try:
            value = text.value(_LONGEST_ROW if opens_rows else LONGEST)
        except JsonBroken as error:
            if opens_rows:
                text.position += 1
                self._inside.append(("{", ""))
            else:
                yield from self._broken(error, "")
            return
        if (rows := self._by_columns(value)) is not None:
            for cells in rows:
                self._row += 1
                yield RawRow(line, self._row, cells)
        elif self._holds_rows(value):
            # Read again, member by member, for their lines.
            text.position = text.began + 1
            self._inside.append(("{", ""))
        else:
            self._row += 1
            yield RawRow(line, self._row, value.items())

    def holds_more_than_a_row(self, value: dict[str, Any]) -> bool:
        return self._holds_rows(value) or self._by_columns(value) is not None

    def _opens_rows(self) -> bool:
        """Whether an object that is broken, or too long to look at whole, holds rows by its beginning."""
        found = _OPENS_ROWS.match(self._text.text, self._text.position)
        return found is not None and not self._is_field(found["name"])

    def _holds_rows(self, value: dict[str, Any]) -> bool:
        if any(map(self._is_field, value)) or is_task(value):
            return False
        return any(map(self._are_rows, value.values())) or any(map(_is_list_of_objects, value.values()))

    def _are_rows(self, value: Any) -> bool:
        """Whether rows are there, at any depth."""
        if isinstance(value, dict):
            return any(map(self._is_field, value)) or any(map(self._are_rows, value.values()))
        return _is_list_of_objects(value) and any(map(self._is_field, value[0]))

    def _by_columns(self, value: dict[str, Any]) -> Iterable[Cells] | None:
        """The rows of an object that holds columns, or a list of rows without names."""
        if isinstance(names := value.get("columns"), list) and isinstance(rows := value.get("data"), list):
            return [list(zip(map(str, names), row, strict=False)) for row in rows if isinstance(row, list)]
        columns = list(value.values())
        if not any(map(self._is_field, value)):
            return None
        if all(isinstance(column, dict) for column in columns):
            places = list(columns[0])
            if not places or not all(map(str.isdigit, places)) or any(list(column) != places for column in columns):
                return None
            columns = [list(column.values()) for column in columns]
        elif (
            len(columns) < 2
            or not all(isinstance(column, list) for column in columns)
            or len(set(map(len, columns))) > 1
            or any(column and isinstance(column[0], dict) for column in columns)
        ):
            return None
        return [list(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]

    def _object(self, name: str, split: str) -> Iterator[Row]:
        """An object under a name: a row, or what holds rows, or something else."""
        text = self._text
        line, _ = text.place(text.position)
        value = text.value()
        if any(map(self._is_field, value)):
            self._row += 1
            yield RawRow(line, self._row, value.items(), split)
        elif self._are_rows(value):
            text.position = text.began + 1
            self._inside.append(("{", split))
        else:
            self._left[name] += 1

    def _named(self, split: str) -> Iterator[Row]:
        """A member of an object that holds rows: its name, and what is under it."""
        text = self._text
        try:
            name = text.value()
            if not isinstance(name, str) or text.next_char() != ":":
                raise JsonBroken(text.position, "syntax")
            text.position += 1
            char = text.next_char()
            named_split = split_of_name(name)
            if text.looks_like(_LIST_OF_ROWS) or (char == "{" and named_split):
                text.position += 1
                self._inside.append((char, named_split or split))
            elif char == "{":
                yield from self._object(name, split)
            elif text.value() is not None:
                self._left[name] += 1
        except JsonBroken as error:
            yield from self._broken(error, split)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def is_json(head: Sequence[str], start: str) -> bool:
    """Whether a text that begins so is JSON, whole or line by line."""
    return _BEGINS.match(start) is not None or any(isinstance(_decoded(line), dict) for line in head)


def is_line_a_row(head: Sequence[str], is_field: IsField) -> bool:
    """Whether each of these first lines of a JSON file is a value of its own, and not one that holds rows."""
    lines = [line for line in head if line.strip(_BLANK)]
    if len(lines) < 2 or lines[0].strip(_BLANK) == "[":
        return False
    rows = [row for line in lines if isinstance(row := _decoded(line), dict) or are_turns(row)]
    values = _Values(JsonText(iter(())), is_field, 0, Counter())
    return bool(rows) and not (isinstance(rows[0], dict) and values.holds_more_than_a_row(rows[0]))


def _decoded(line: str) -> Any:
    try:
        return DECODER.decode(line.strip(_BLANK))
    except (ValueError, RecursionError):
        return None
