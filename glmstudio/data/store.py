"""The examples of a workspace in a database: save, page, search, delete, undo. With `migrations` the only module that
imports sqlalchemy. Knows no file format and no words; SQLite is the default, other SQLAlchemy URLs hold in principle.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from glmstudio.data.example import Example
from glmstudio.data.migrations import migrate
from glmstudio.data.quality import is_storable
from glmstudio.errors import StudioError

SEARCH_LIMIT = 1000
BUSY_SECONDS = 30
_BATCH = 1000
_COLUMNS = tuple(item.name for item in fields(Example))
_GIVEN_BY_STORE = ("id", "revision", "created_at", "updated_at")
_CONTENT = tuple(name for name in _COLUMNS if name not in _GIVEN_BY_STORE)


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


class Store:
    """One database. Every method is one transaction (`iterate`: one a batch) and may be called from any thread.

    Every method raises StudioError `database-failed` with the driver's reason when the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens or creates the database and brings it to today's schema. Raises StudioError `database-newer`."""
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(writes=True)
        self._name = self._engine.url.render_as_string(hide_password=True)
        with self._transaction(self._writer) as connection:
            migrate(connection)
            self._examples = sa.Table("examples", sa.MetaData(), autoload_with=connection)
            self._revisions = sa.Table("revisions", sa.MetaData(), autoload_with=connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StudioError("database-failed", database=self._name, reason=str(error.orig)) from error

    # One row

    def get(self, example_id: int) -> Example:
        """Raises StudioError `example-gone` for a row that was deleted or never was."""
        with self._transaction(self._engine) as connection:
            return self._current(connection, example_id)

    def save(self, example: Example, *, expected_revision: int | None = None) -> Example:
        """Inserts when `id` is None, else updates and keeps the former content in the history. Where only the person
        who saves it differs, the row stays as it is.

        Raises StudioError `stale-revision` (`current`: the row as it is now) when somebody saved the row since
        `expected_revision`, `example-gone`, `text-unstorable`.
        """
        content = _content(example)
        with self._transaction(self._writer) as connection:
            if example.id is None:
                new_row = content | _born()
                example_id = connection.execute(sa.insert(self._examples).values(new_row)).inserted_primary_key[0]
            else:
                example_id = example.id
                current = self._current(connection, example_id, expected_revision)
                if _content(current) | {"annotator": ""} == content | {"annotator": ""}:
                    return current
                self._remember(connection, current, undone=0)
                self._revise(connection, current, content)
            return self._current(connection, example_id)

    def undo_save(self, example_id: int, *, expected_revision: int | None = None) -> Example | None:
        """Back to the content before the last save, as a new revision; again for the one before that.

        A row that was saved only once is deleted, and the answer is None: `restore` brings it back.
        Raises StudioError `nothing-to-undo`, `stale-revision`, `example-gone`.
        """
        history = self._revisions
        with self._transaction(self._writer) as connection:
            current = self._current(connection, example_id, expected_revision)
            not_undone = sa.select(history).where(history.c.example_id == example_id, history.c.undone == 0)
            former = connection.execute(not_undone.order_by(history.c.revision.desc()).limit(1)).first()
            if former is None and current.revision > 1:
                raise StudioError("nothing-to-undo", id=example_id)
            if former is None:
                self._mark(connection, [example_id], deleted_at=_now())
                return None
            self._remember(connection, current, undone=1)
            connection.execute(sa.update(history).where(history.c.id == former.id).values(undone=1))
            self._revise(connection, current, {name: former._mapping[name] for name in _CONTENT})
            return self._current(connection, example_id)

    def _current(self, connection: sa.Connection, example_id: int, expected_revision: int | None = None) -> Example:
        table = self._examples
        alive = sa.select(table).where(table.c.id == example_id, table.c.deleted_at == "")
        row = connection.execute(alive.with_for_update()).first()
        if row is None:
            raise StudioError("example-gone", id=example_id)
        current = _example(row)
        if expected_revision is not None and current.revision != expected_revision:
            raise StudioError("stale-revision", id=example_id, current=current)
        return current

    def _remember(self, connection: sa.Connection, current: Example, *, undone: int) -> None:
        kept = {"example_id": current.id, "revision": current.revision, "updated_at": current.updated_at}
        connection.execute(sa.insert(self._revisions).values(_content(current) | kept | {"undone": undone}))

    def _revise(self, connection: sa.Connection, current: Example, content: dict[str, str]) -> None:
        changes = content | {"revision": current.revision + 1, "updated_at": _now()}
        connection.execute(sa.update(self._examples).where(self._examples.c.id == current.id).values(changes))

    # Many rows

    def delete(self, ids: Sequence[int]) -> int:
        """Hides the rows from everything but `restore`; returns how many there were."""
        with self._transaction(self._writer) as connection:
            return self._mark(connection, ids, deleted_at=_now())

    def restore(self, ids: Sequence[int]) -> int:
        """Brings deleted rows back as they were; returns how many there were."""
        with self._transaction(self._writer) as connection:
            return self._mark(connection, ids, deleted_at="")

    def _mark(self, connection: sa.Connection, ids: Sequence[int], *, deleted_at: str) -> int:
        table, marked = self._examples, 0
        changes = table.c.deleted_at == "" if deleted_at else table.c.deleted_at != ""
        for batch in _batches(ids):
            chosen = sa.update(table).where(table.c.id.in_(batch), changes)
            marked += connection.execute(chosen.values(deleted_at=deleted_at)).rowcount
        return marked

    def add_many(self, examples: Iterable[Example]) -> int:
        """Inserts all of them or, when the iterable or the database fails, none; returns how many.

        On SQLite other writers wait meanwhile (`BUSY_SECONDS` at most), so hand over rows that are quick to come.
        """
        added = 0
        with self._transaction(self._writer) as connection:
            for batch in _batches(examples):
                born = _born()
                connection.execute(sa.insert(self._examples), [_content(example) | born for example in batch])
                added += len(batch)
        return added

    def page(self, query: Query, *, offset: int = 0, limit: int = 20) -> Page:
        """Newest first. Raises StudioError `search-too-long`."""
        table = self._examples
        # Used twice, the matches are found once and kept by the database: a search reads every text, so once is enough.
        matches = sa.select(table.c.id).where(*self._conditions(query)).cte("matches")
        total = sa.select(sa.func.count()).select_from(matches).scalar_subquery()
        chosen = sa.select(matches.c.id, total).order_by(matches.c.id.desc()).offset(offset).limit(limit)
        with self._transaction(self._engine) as connection:
            found = connection.execute(chosen).all()
            ids = [example_id for example_id, _ in found]
            rows = connection.execute(sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id.desc())).all()
        if not found and offset > 0:
            return Page([], self.page(query, limit=1).total)
        return Page([_example(row) for row in rows], found[0][1] if found else 0)

    def after(self, query: Query, example_id: int) -> tuple[int, int] | None:
        """(id, place from 0) of the row that follows `example_id` in `page`'s order, whether or not that one is among
        the rows asked for; None behind the last one."""
        table, conditions = self._examples, self._conditions(query)
        follows = sa.select(sa.func.max(table.c.id)).where(*conditions, table.c.id < example_id)
        with self._transaction(self._engine) as connection:
            found = connection.execute(follows).scalar()
            if found is None:
                return None
            before = sa.select(sa.func.count()).select_from(table).where(*conditions, table.c.id > found)
            return found, connection.execute(before).scalar_one()

    def iterate(self, query: Query) -> Iterator[Example]:
        """Oldest first; discarded rows only when `query.status` asks for them, rows deleted meanwhile not at all."""
        table = self._examples
        conditions = [*self._conditions(query), *([] if query.status else [table.c.status != "discarded"])]
        with self._transaction(self._engine) as connection:
            ids = connection.execute(sa.select(table.c.id).where(*conditions).order_by(table.c.id)).scalars().all()
        for batch in _batches(ids):
            alive = sa.select(table).where(table.c.id.in_(batch), table.c.deleted_at == "")
            with self._transaction(self._engine) as connection:
                rows = connection.execute(alive.order_by(table.c.id)).all()
            yield from map(_example, rows)

    def datasets(self) -> list[DatasetSummary]:
        """By name; a dataset is there as long as it has a row."""
        columns = self._examples.c

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
        alive = counts.where(columns.deleted_at == "").group_by(columns.dataset).order_by(columns.dataset)
        with self._transaction(self._engine) as connection:
            return [DatasetSummary(*row) for row in connection.execute(alive)]

    def _conditions(self, query: Query) -> list[Any]:
        columns, search = self._examples.c, query.search.strip()
        wanted = [(name, getattr(query, name)) for name in ("dataset", "split", "status", "source")]
        alive = columns.deleted_at != "" if query.deleted else columns.deleted_at == ""
        conditions = [alive, *(columns[name] == value for name, value in wanted if value)]
        if len(search) > SEARCH_LIMIT:
            raise StudioError("search-too-long", length=len(search), limit=SEARCH_LIMIT)
        if search:
            # SQLite's LIKE already ignores the case of ASCII letters, and lower() around it would cost twice the time.
            contains = "contains" if self._engine.dialect.name == "sqlite" else "icontains"
            part_of = {name: getattr(columns[name], contains)(search, autoescape=True) for name in _SEARCHED}
            alone = sa.and_(columns.input == "", part_of["instruction"])
            conditions.append(sa.or_(part_of["input"], part_of["target"], alone))
        return conditions


_SEARCHED = ("instruction", "input", "target")


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The driver must not open transactions itself: its late BEGIN makes two writers fail at once instead of waiting.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"busy_timeout = {BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _born() -> dict[str, Any]:
    now = _now()
    return {"revision": 1, "created_at": now, "updated_at": now, "deleted_at": ""}


def _content(example: Example) -> dict[str, str]:
    """The columns that a person writes. Raises StudioError `text-unstorable` with the field."""
    content = {name: getattr(example, name) for name in _CONTENT}
    content["tags"] = json.dumps(example.tags, ensure_ascii=False)
    for name, value in content.items():
        if not is_storable(value):
            raise StudioError("text-unstorable", field=name)
    return content


def _example(row: sa.Row[Any]) -> Example:
    values = {name: row._mapping[name] for name in _COLUMNS}
    return Example(**values | {"tags": tuple(json.loads(values["tags"]))})


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
