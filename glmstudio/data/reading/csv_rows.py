"""Rows of a text that parts columns by a character: CSV as spreadsheets, programs and hands write it. A quotation mark
that is never closed costs one line. Knows no encoding and not what the names mean.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from glmstudio.data.example import Reject
from glmstudio.data.reading.rows import RawRow, Row

_DELIMITERS = (",", "\t", ";", "|", "，")
# Titles and blank lines may stand before the names of the columns.
HEAD_LINES = 20
# A quotation mark that is not closed within so many lines is never closed.
_MOST_LINES = 10_000
_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_LONE_RETURN = re.compile(r"(?<=\r)(?!\n)")
IsField = Callable[[str], bool]
csv.field_size_limit(2**31 - 1)


def cells_of(line: str, delimiter: str) -> list[str]:
    """The names in a line: blanks and quotation marks around them do not count."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        cells = line.split(delimiter)
    return [cell.strip(' \t\r\n\ufeff"') for cell in cells]


def named(names: Sequence[str]) -> list[str]:
    """Columns without a name are called by their number."""
    return [name or f"#{number}" for number, name in enumerate(names, start=1)]


def find_header(lines: Sequence[str], is_field: IsField) -> tuple[int, str] | None:
    """(index of the line with the names, the character that parts them): the first line that is neither blank nor a
    title, parted so that most parts are known names. None where none is."""
    delimiters = _DELIMITERS
    for place, line in enumerate(lines[:HEAD_LINES]):
        if said := _SEPARATOR.fullmatch(line.strip('\ufeff" \r\n')):
            delimiters = (said[1],)
            continue
        known = {delimiter: sum(map(is_field, cells_of(line, delimiter))) for delimiter in delimiters}
        best = max(known, key=known.__getitem__)
        if known[best]:
            return place, best
        if any(sum(map(bool, cells_of(line, delimiter))) > 1 for delimiter in delimiters[:3]):
            return None
    return None


def looks_parted(lines: Sequence[str]) -> list[str]:
    """The cells of the first line where the lines hold columns, though of unknown names; else nothing."""
    if lines[0].startswith(("[", "{")):
        return []
    for delimiter in _DELIMITERS[:3]:
        counts = {len(cells_of(line, delimiter)) for line in lines[:HEAD_LINES] if line.strip()}
        if len(counts) == 1 and counts != {1}:
            return cells_of(next(line for line in lines if line.strip()), delimiter)
    return []


class _Lines(Iterator[str]):
    """Lines of a CSV that can be given back: a quote that is never closed costs one line, not the rest of the file."""

    def __init__(self, lines: Iterator[str], done: int) -> None:
        self._lines, self._given_back, self._taken = lines, deque(), []
        self.done = done

    def __next__(self) -> str:
        if len(self._taken) >= _MOST_LINES:
            raise csv.Error("a record of too many lines")
        line = self._given_back.popleft() if self._given_back else next(self._lines)
        self._taken.append(line)
        return line

    def settle(self, *, only_first: bool = False) -> None:
        """The lines taken for a record are done with, or only the first of them."""
        if only_first:
            self._given_back.extendleft(reversed(self._taken[1:]))
            del self._taken[1:]
        self.done += len(self._taken)
        self._taken.clear()


def _parted_at_returns(lines: Iterable[str]) -> Iterator[str]:
    """Old programs end a line with a carriage return alone."""
    for line in lines:
        if "\r" in line:
            yield from filter(None, _LONE_RETURN.split(line))
        else:
            yield line


def csv_rows(lines: Iterable[str], header: int, delimiter: str) -> Iterator[Row]:
    """The rows below the line with index `header`. The same names again, where files were joined, are no row."""
    lines = _parted_at_returns(lines)
    names = header_cells = cells_of(next(islice(lines, header, None)), delimiter)
    while names and not names[-1]:
        names.pop()
    names = named(names)
    taken = _Lines(lines, header + 1)
    reader = csv.reader(taken, delimiter=delimiter, strict=True)
    row = 0
    while True:
        taken.settle()
        line = taken.done + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            taken.settle(only_first=True)
            row += 1
            yield Reject(line, "csv-syntax", row=row)
            continue
        if not any(cells) or cells[: len(header_cells)] == header_cells:
            continue
        row += 1
        if any(cells[len(names) :]):
            yield Reject(line, "csv-columns", {"expected": len(names), "found": len(cells)}, row)
        else:
            yield RawRow(line, row, list(zip(names, cells, strict=False)))
