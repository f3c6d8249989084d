"""What the readers of this package give: a row as its file has it, before its names mean anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from glmstudio.data.example import Reject


class RawRow(NamedTuple):
    """`line` and `row` are 1-based; `cells` are pairs of the column's name and its value; `split` is that of the list
    which the row stood in, or empty."""

    line: int
    row: int
    cells: Iterable[tuple[str, Any]]
    split: str = ""


@dataclass(frozen=True)
class Shape:
    """What a reader has found out about its file before the first row."""

    kind: str


Row = RawRow | Reject
