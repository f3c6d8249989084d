"""The examples of a workspace as they are read: one page, a search, all of them, what there is of each kind. Knows no
file and no words."""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import sqlalchemy as sa

from glmstudio.data.changes import Changes
from glmstudio.data.database import Database
from glmstudio.data.example import Example
from glmstudio.data.import_records import ImportRecords
from glmstudio.data.known_rows import KnownRows
from glmstudio.data.row_starts import StartsPage, columns_of, row_start
from glmstudio.errors import StudioError

SEARCH_LIMIT = 1000
COLUMNS = tuple(item.name for item in fields(Example))
_BATCH = 1000
_SEARCHED = ("instruction", "input", "target")
_TAGS = COLUMNS.index("tags")


@dataclass(frozen=True)
class Query:
    """Which rows: an empty field means any. `search` is a part of input or target, or of the instruction of a row that
    has no input; ASCII letters match in either case. `deleted` asks for the rows in the bin instead."""

    dataset: str = ""
    split: str = ""
    status: str = ""
    source: str = ""
    search: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Page:
    """Some rows, newest first, and how many there are in all."""

    rows: list[Example]
    total: int


@dataclass(frozen=True)
class DatasetSummary:
    """Row counts of a dataset. `train` and `dev` are the rows that are done, as a run takes them; `total` is all."""

    name: str
    total: int
    train: int
    dev: int
    draft: int


class RowReader:
    """The rows of one database. Every method is one transaction (`iterate` and `rows`: one a batch) and may be called
    from any thread. Raises as `Store` does."""

    def __init__(self, database: Database, changes: Changes, imports: ImportRecords) -> None:
        self._database, self._examples = database, database.examples
        self._columns = [self._examples.c[name] for name in COLUMNS]
        self.changes, self.imports = changes, imports
        self._summaries: tuple[dict[str, int], list[DatasetSummary]] | None = None

    def page(self, query: Query, *, offset: int = 0, limit: int = 20) -> Page:
        """Newest first. Raises StudioError `search-too-long`."""
        rows, total = self._page(query, offset, limit, self._columns)
        return Page([example_of_row(row) for row in rows], total)

    def starts(self, query: Query, *, offset: int = 0, limit: int = 20) -> StartsPage:
        """As `page`, in the time of short rows whatever they hold."""
        columns = columns_of(self._examples, query.search.strip(), is_sqlite=self._database.is_sqlite)
        rows, total = self._page(query, offset, limit, columns)
        return StartsPage([row_start(row) for row in rows], total)

    def _page(self, query: Query, offset: int, limit: int, columns: list[Any]) -> tuple[Sequence[Any], int]:
        table = self._examples
        with self._database.read() as connection:
            # Used twice, the matches are found once and kept by the database: a search reads every text.
            matches = sa.select(table.c.id).where(*self._conditions(query), *self._seen(connection)).cte("matches")
            total = sa.select(sa.func.count()).select_from(matches).scalar_subquery()
            chosen = sa.select(matches.c.id, total).order_by(matches.c.id.desc()).offset(offset).limit(limit)
            found = connection.execute(chosen).all()
            if not found:
                return [], connection.execute(sa.select(total)).scalar_one() if offset else 0
            shown = sa.select(*columns).where(table.c.id.in_([example_id for example_id, _ in found]))
            return connection.execute(shown.order_by(table.c.id.desc())).all(), found[0][1]

    def after(self, query: Query, example_id: int) -> tuple[int, int] | None:
        """(id, place from 0) of the row that follows `example_id` in `page`'s order, whether or not that one is among
        the rows asked for; None behind the last one."""
        table = self._examples
        with self._database.read() as connection:
            conditions = [*self._conditions(query), *self._seen(connection)]
            follows = sa.select(sa.func.max(table.c.id)).where(*conditions, table.c.id < example_id)
            found = connection.execute(follows).scalar()
            if found is None:
                return None
            before = sa.select(sa.func.count()).select_from(table).where(*conditions, table.c.id > found)
            return found, connection.execute(before).scalar_one()

    def find(self, instruction: str, input: str, *, dataset: str, split: str) -> Example | None:
        """The newest row of that dataset and split with exactly this prompt."""
        table = self._examples
        wanted = {"instruction": instruction, "input": input, "dataset": dataset, "split": split}
        with self._database.read() as connection:
            same = [table.c[name] == value for name, value in wanted.items()]
            found = sa.select(*self._columns).where(*same, *self._alive(connection)).order_by(table.c.id.desc())
            row = connection.execute(found.limit(1)).first()
        return example_of_row(row) if row is not None else None

    def iterate(self, query: Query) -> Iterator[Example]:
        """Oldest first; discarded rows only when `query.status` asks for them, rows deleted meanwhile not at all."""
        table = self._examples
        conditions = [*self._conditions(query), *([] if query.status else [table.c.status != "discarded"])]
        with self._database.read() as connection:
            wanted = sa.select(table.c.id).where(*conditions, *self._seen(connection))
            ids = connection.execute(wanted.order_by(table.c.id)).scalars().all()
        yield from self.rows(ids, query)

    def rows(self, ids: Sequence[int], query: Query | None = None) -> Iterator[Example]:
        """Those of these ids that are there, as they are by now, by id; with a query for the bin what is in it."""
        table = self._examples
        for batch in batches(ids):
            with self._database.read() as connection:
                alive = sa.select(*self._columns).where(table.c.id.in_(batch), *self._alive(connection, query))
                found = connection.execute(alive.order_by(table.c.id)).all()
            yield from map(example_of_row, found)

    def known(self, dataset: str) -> KnownRows:
        """The texts of all its rows, discarded ones, too."""
        columns = self._examples.c
        with self._database.read() as connection:
            texts = sa.select(columns.split, columns.instruction, columns.input, columns.target)
            found = texts.where(columns.dataset == dataset, *self._alive(connection))
            return KnownRows(map(tuple, connection.execute(found.execution_options(yield_per=_BATCH))))

    def revisions(self, dataset: str) -> tuple[int, list[tuple[int, int]]]:
        """(the dataset's number of `changes`, id and revision of each row that is done, by id), of one moment."""
        table = self._examples
        with self._database.read() as connection:
            conditions = self._conditions(Query(dataset=dataset, status="done"))
            chosen = sa.select(table.c.id, table.c.revision).where(*conditions, *self._seen(connection))
            found = connection.execute(chosen.order_by(table.c.id)).all()
            return self.changes.of(connection, dataset), [tuple(row) for row in found]

    def datasets(self) -> list[DatasetSummary]:
        """By name; a dataset is there as long as it has a row. Counted again only where rows have changed."""
        columns, changed = self._examples.c, self.changes.all()
        known = self._summaries
        if known is not None and known[0] == changed:
            return list(known[1])

        def count(*conditions: Any) -> Any:
            return sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0))

        done = columns.status == "done"
        counts = sa.select(
            columns.dataset,
            sa.func.count(),
            count(done, columns.split == "train"),
            count(done, columns.split == "dev"),
            count(columns.status == "draft"),
        )
        with self._database.read() as connection:
            alive = counts.where(*self._alive(connection)).group_by(columns.dataset).order_by(columns.dataset)
            found = [DatasetSummary(*row) for row in connection.execute(alive)]
        # What was written since the numbers were read is counted again.
        self._summaries = changed, found
        return list(found)

    def count(self, query: Query) -> Counter[tuple[str, str]]:
        """How many rows there are of each (split, status)."""
        kind = (self._examples.c.split, self._examples.c.status)
        with self._database.read() as connection:
            counts = sa.select(*kind, sa.func.count()).where(*self._conditions(query), *self._seen(connection))
            rows = connection.execute(counts.group_by(*kind)).all()
        return Counter({(split, status): count for split, status, count in rows})

    def _alive(self, connection: sa.Connection, query: Query | None = None) -> list[Any]:
        """Not deleted, or in the bin where the query asks for that, and to be seen."""
        return [self._deleted(query), *self._seen(connection)]

    def _deleted(self, query: Query | None) -> Any:
        deleted_at = self._examples.c.deleted_at
        return deleted_at != "" if query is not None and query.deleted else deleted_at == ""

    def _seen(self, connection: sa.Connection) -> list[Any]:
        """Not of an import that is under way, taken back or broken off."""
        hidden = self.imports.hidden(connection)
        return [self._examples.c.import_id.not_in(hidden)] if hidden else []

    def _conditions(self, query: Query) -> list[Any]:
        columns, search = self._examples.c, query.search.strip()
        wanted = [(name, getattr(query, name)) for name in ("dataset", "split", "status", "source")]
        conditions = [self._deleted(query), *(columns[name] == value for name, value in wanted if value)]
        if len(search) > SEARCH_LIMIT:
            raise StudioError("search-too-long", length=len(search), limit=SEARCH_LIMIT)
        if search:
            # SQLite's LIKE already ignores the case of ASCII letters, and lower() around it would cost twice the time.
            contains = "contains" if self._database.is_sqlite else "icontains"
            part_of = {name: getattr(columns[name], contains)(search, autoescape=True) for name in _SEARCHED}
            alone = sa.and_(columns.input == "", part_of["instruction"])
            conditions.append(sa.or_(part_of["input"], part_of["target"], alone))
        return conditions


def example_of_row(row: Sequence[Any]) -> Example:
    """From the values of `COLUMNS`."""
    return Example(*row[:_TAGS], _tags(row[_TAGS]), *row[_TAGS + 1 :])


@functools.lru_cache(maxsize=1000)
def _tags(stored: str) -> tuple[str, ...]:
    return tuple(json.loads(stored))


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
