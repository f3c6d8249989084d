"""How rows begin, as lists show them: of a text that holds a book only the beginning is read. Knows no word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

# Of each text; far beyond what a row of a list shows, and what a base is trained with.
CHARACTERS = 20_000
# Of what lies around the place of a search further back.
BEFORE, AFTER = 40, 160
TEXTS = ("instruction", "input", "target")
_FIELDS = ("id", "split", "status", "source", "dataset")


@dataclass(frozen=True)
class TextStart:
    """The first `CHARACTERS` of a text; with `more` it goes on. `match` is what stands around the first place of a
    search that lies behind them, "" where there is none."""

    text: str
    more: bool = False
    match: str = ""

    @classmethod
    def of(cls, text: str, match: str = "") -> "TextStart":
        """Of a text, or of a bit more of it than its start."""
        return cls(text[:CHARACTERS], len(text) > CHARACTERS, match)


@dataclass(frozen=True)
class RowStart:
    """A row without what is too long for a list."""

    id: int
    split: str
    status: str
    source: str
    dataset: str
    instruction: TextStart
    input: TextStart
    target: TextStart


@dataclass(frozen=True)
class StartsPage:
    """Some rows, newest first, and how many there are in all."""

    rows: list[RowStart]
    total: int


def columns_of(examples: sa.Table, search: str, *, is_sqlite: bool) -> list[Any]:
    """What `row_start` is made of."""
    columns = [examples.c[name] for name in _FIELDS]
    for name in TEXTS:
        columns.append(sa.func.substr(examples.c[name], 1, CHARACTERS + 1))
        columns.append(_match(examples, name, search, is_sqlite) if search else sa.literal(""))
    return columns


def _match(examples: sa.Table, name: str, search: str, is_sqlite: bool) -> Any:
    def place(text: Any) -> Any:
        found = sa.func.instr if is_sqlite else sa.func.strpos
        return found(sa.func.lower(text), sa.func.lower(search))

    text = examples.c[name]
    # An instruction is searched where there is no input.
    unseen = [(examples.c.input != "", "")] if name == "instruction" else []
    near = place(sa.func.substr(text, 1, CHARACTERS)) > 0
    around = sa.func.substr(text, place(text) - BEFORE, BEFORE + len(search) + AFTER)
    return sa.case(*unseen, (near, ""), (place(text) > 0, around), else_="")


def row_start(values: Sequence[Any]) -> RowStart:
    """From the values of `columns_of`."""
    pairs = list(values[len(_FIELDS) :])
    starts = map(TextStart.of, pairs[::2], pairs[1::2])
    return RowStart(*values[: len(_FIELDS)], *starts)
