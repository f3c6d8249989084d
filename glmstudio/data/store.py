"""The examples of a workspace in a database: save, delete, undo, import. Knows no file and no words."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import sqlalchemy as sa

from glmstudio.data.changes import Changes
from glmstudio.data.database import Database
from glmstudio.data.example import Example
from glmstudio.data.import_records import ImportRecord, ImportRecords, portions
from glmstudio.data.quality import is_storable
from glmstudio.data.row_reader import COLUMNS, RowReader, batches, example_of_row
from glmstudio.data.verdicts import Judgement, Verdicts
from glmstudio.errors import StudioError

_GIVEN_BY_STORE = ("id", "revision", "created_at", "updated_at")
_CONTENT = tuple(name for name in COLUMNS if name not in _GIVEN_BY_STORE)


class Store(RowReader):
    """The rows of one database. Every method is one transaction (`iterate`, `rows` and `import_rows`: one a batch) and
    may be called from any thread. `changes`, `imports` and `verdicts` are what else the database keeps.

    Every method raises StudioError `database-failed` with the driver's reason when the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens or creates the database and brings it to today's schema. Raises as `Database` does."""
        database = Database(url)
        changes = Changes(database)
        super().__init__(database, changes, ImportRecords(database, changes, _now))
        self._revisions = database.revisions
        self.verdicts = Verdicts(database)
        self.copy = database.copy

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
                self.changes.note(connection, [example.dataset])
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
        alive = sa.select(*self._columns).where(table.c.id == example_id, *self._alive(connection))
        row = connection.execute(alive.with_for_update()).first()
        if row is None:
            raise StudioError("example-gone", id=example_id)
        current = example_of_row(row)
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
        self.changes.note(connection, (current.dataset, content["dataset"]))

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
        for batch in batches(ids):
            chosen = [table.c.id.in_(batch), changes, *self._seen(connection)]
            datasets = connection.execute(sa.select(table.c.dataset).where(*chosen).distinct()).scalars().all()
            marked += connection.execute(sa.update(table).where(*chosen).values(deleted_at=deleted_at)).rowcount
            self.changes.note(connection, datasets)
        return marked

    def add_many(self, examples: Iterable[Example]) -> int:
        """Inserts all of them or, when the iterable or the database fails, none; returns how many.

        On SQLite other writers wait meanwhile, so this is for few rows that are quick to come: else `import_rows`.
        """
        added = 0
        with self._database.write() as connection:
            for batch in batches(examples):
                born = _born()
                connection.execute(sa.insert(self._examples), [_content(example) | born for example in batch])
                self.changes.note(connection, (example.dataset for example in batch))
                added += len(batch)
        return added

    def import_rows(
        self, examples: Iterable[Example], *, dataset: str, file: str, person: str = ""
    ) -> ImportRecord | None:
        """Inserts them in portions, between which others save, and shows them all at the end. Where the iterable or
        the database fails, nothing stays; where there are no rows there is no import. Raises StudioError `import-gone`
        where somebody removed the import meanwhile."""
        coming = portions(_content(example) | _born() for example in examples)
        if (first := next(coming, None)) is None:
            return None
        import_id = self.imports.begin(dataset, file, person)
        try:
            for rows in chain([first], coming):
                self.imports.add(import_id, rows)
                self._database.pause()
            return self.imports.complete(import_id)
        except BaseException:
            # What cannot be removed now is removed at the next start.
            with suppress(StudioError):
                self.imports.remove(import_id)
            raise

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
            self.changes.note(connection, (name, new))
        return renamed[self._examples]


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
