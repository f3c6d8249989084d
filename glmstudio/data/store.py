"""The examples of a workspace in a database: save, page, search, delete, undo, import. Knows no file and no words."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa

from glmstudio.data.database import Database
from glmstudio.data.example import Example
from glmstudio.data.import_records import ImportRecord, ImportRecords, portions
from glmstudio.data.quality import is_storable
from glmstudio.data.verdicts import Judgement, Verdicts
from glmstudio.errors import StudioError

SEARCH_LIMIT = 1000
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
    """The rows of one database. Every method is one transaction (`iterate` and `import_rows`: one a batch) and may be
    called from any thread. `imports` and `verdicts` are what else the database keeps.

    Every method raises StudioError `database-failed` with the driver's reason when the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens or creates the database and brings it to today's schema. Raises as `Database` does."""
        self._database = Database(url)
        self._examples, self._revisions = self._database.examples, self._database.revisions
        self.imports = ImportRecords(self._database, _now)
        self.verdicts = Verdicts(self._database)
        self.copy = self._database.copy

    def close(self) -> None:
        self._database.close()

    # One row

    def get(self, example_id: int) -> Example:
        """Raises StudioError `example-gone` for a row that was deleted or never was."""
        with self._database.read() as connection:
            return self._current(connection, example_id)

    def save(
        self, example: Example, *, expected_revision: int | None = None, judgement: Judgement | None = None
    ) -> Example:
        """Inserts when `id` is None, else updates and keeps the former content in the history. Where only the person
        who saves it differs, the row stays as it is. The `judgement` that it was made of is kept with it.

        Raises StudioError `stale-revision` (`current`: the row as it is now) when somebody saved the row since
        `expected_revision`, `example-gone`, `text-unstorable`.
        """
        content = _content(example)
        with self._database.write() as connection:
            if example.id is None:
                new_row = content | _born()
                example_id = connection.execute(sa.insert(self._examples).values(new_row)).inserted_primary_key[0]
            else:
                example_id = example.id
                current = self._current(connection, example_id, expected_revision)
                if _content(current) | {"annotator": ""} != content | {"annotator": ""}:
                    self._remember(connection, current, undone=0)
                    self._revise(connection, current, content)
            saved = self._current(connection, example_id)
            if judgement is not None:
                self.verdicts.keep(connection, saved, judgement)
            return saved

    def undo_save(self, example_id: int, *, expected_revision: int | None = None) -> Example | None:
        """Back to the content before the last save, as a new revision; again for the one before that.

        A row that was saved only once is deleted, and the answer is None: `restore` brings it back.
        Raises StudioError `nothing-to-undo`, `stale-revision`, `example-gone`.
        """
        history = self._revisions
        with self._database.write() as connection:
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
        alive = sa.select(table).where(table.c.id == example_id, *self._alive(connection))
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
        # What somebody has changed stays when the import that brought it is taken back.
        changes = content | {"revision": current.revision + 1, "updated_at": _now(), "import_id": 0}
        connection.execute(sa.update(self._examples).where(self._examples.c.id == current.id).values(changes))

    # Many rows

    def delete(self, ids: Sequence[int]) -> int:
        """Hides the rows from everything but `restore`; returns how many there were."""
        with self._database.write() as connection:
            return self._mark(connection, ids, deleted_at=_now())

    def restore(self, ids: Sequence[int]) -> int:
        """Brings deleted rows back as they were; returns how many there were."""
        with self._database.write() as connection:
            return self._mark(connection, ids, deleted_at="")

    def _mark(self, connection: sa.Connection, ids: Sequence[int], *, deleted_at: str) -> int:
        table, marked = self._examples, 0
        changes = table.c.deleted_at == "" if deleted_at else table.c.deleted_at != ""
        for batch in _batches(ids):
            chosen = sa.update(table).where(table.c.id.in_(batch), changes, *self._seen(connection))
            marked += connection.execute(chosen.values(deleted_at=deleted_at)).rowcount
        return marked

    def add_many(self, examples: Iterable[Example]) -> int:
        """Inserts all of them or, when the iterable or the database fails, none; returns how many.

        On SQLite other writers wait meanwhile, so this is for few rows that are quick to come: else `import_rows`.
        """
        added = 0
        with self._database.write() as connection:
            for batch in _batches(examples):
                born = _born()
                connection.execute(sa.insert(self._examples), [_content(example) | born for example in batch])
                added += len(batch)
        return added

    def import_rows(self, examples: Iterable[Example], *, dataset: str, file: str, person: str = "") -> ImportRecord:
        """Inserts them in portions, between which others save, and shows them all at the end. Where the iterable or
        the database fails, nothing stays. Raises StudioError `import-gone` where somebody removed the import
        meanwhile."""
        import_id = self.imports.begin(dataset, file, person)
        try:
            for rows in portions(_content(example) | _born() for example in examples):
                self.imports.add(import_id, rows)
                self._database.pause()
            return self.imports.complete(import_id)
        except BaseException:
            # What cannot be removed now is removed at the next start.
            with suppress(StudioError):
                self.imports.remove(import_id)
            raise

    def page(self, query: Query, *, offset: int = 0, limit: int = 20) -> Page:
        """Newest first. Raises StudioError `search-too-long`."""
        table = self._examples
        with self._database.read() as connection:
            # Used twice, the matches are found once and kept by the database: a search reads every text.
            matches = sa.select(table.c.id).where(*self._conditions(query), *self._seen(connection)).cte("matches")
            total = sa.select(sa.func.count()).select_from(matches).scalar_subquery()
            chosen = sa.select(matches.c.id, total).order_by(matches.c.id.desc()).offset(offset).limit(limit)
            found = connection.execute(chosen).all()
            ids = [example_id for example_id, _ in found]
            rows = connection.execute(sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id.desc())).all()
        if not found and offset > 0:
            return Page([], self.page(query, limit=1).total)
        return Page([_example(row) for row in rows], found[0][1] if found else 0)

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
            found = sa.select(table).where(*same, *self._alive(connection)).order_by(table.c.id.desc()).limit(1)
            row = connection.execute(found).first()
        return _example(row) if row is not None else None

    def iterate(self, query: Query) -> Iterator[Example]:
        """Oldest first; discarded rows only when `query.status` asks for them, rows deleted meanwhile not at all."""
        table = self._examples
        conditions = [*self._conditions(query), *([] if query.status else [table.c.status != "discarded"])]
        with self._database.read() as connection:
            wanted = sa.select(table.c.id).where(*conditions, *self._seen(connection))
            ids = connection.execute(wanted.order_by(table.c.id)).scalars().all()
        for batch in _batches(ids):
            with self._database.read() as connection:
                alive = sa.select(table).where(table.c.id.in_(batch), *self._alive(connection, query))
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
        with self._database.read() as connection:
            alive = counts.where(*self._alive(connection)).group_by(columns.dataset).order_by(columns.dataset)
            return [DatasetSummary(*row) for row in connection.execute(alive)]

    def count(self, query: Query) -> Counter[tuple[str, str]]:
        """How many rows there are of each (split, status)."""
        kind = (self._examples.c.split, self._examples.c.status)
        with self._database.read() as connection:
            counts = sa.select(*kind, sa.func.count()).where(*self._conditions(query), *self._seen(connection))
            rows = connection.execute(counts.group_by(*kind)).all()
        return Counter({(split, status): count for split, status, count in rows})

    def rename_dataset(self, name: str, new: str) -> int:
        """Gives all its rows, their history and its imports to a dataset that is new; returns how many rows.

        Raises StudioError `dataset-missing` and `dataset-exists`.
        """
        names = [summary.name for summary in self.datasets()]
        if name not in names:
            raise StudioError("dataset-missing", dataset=name, names=", ".join(names))
        if new in names:
            raise StudioError("dataset-exists", dataset=new)
        renamed = {}
        with self._database.write() as connection:
            for table in (self._examples, self._revisions, self._database.imports):
                former = sa.update(table).where(table.c.dataset == name)
                renamed[table] = connection.execute(former.values(dataset=new)).rowcount
        return renamed[self._examples]

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


_SEARCHED = ("instruction", "input", "target")


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
