"""Imports in the database: rows come in portions, between which others save, and are there for everybody at once, when
the import is complete. Knows no file.

A row carries the id of its import until somebody changes it. Rows of an import that is under way, was taken back or was
broken off are hidden from everything.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from glmstudio.data.changes import Changes
from glmstudio.data.database import Database
from glmstudio.errors import StudioError
from glmstudio.processes import is_there, this_process

# A portion is one transaction: so many rows or characters at most.
PORTION_ROWS = 1000
PORTION_CHARACTERS = 1_000_000
_HIDDEN = ("running", "undone", "removing")
_COLUMNS = ("id", "dataset", "file", "person", "state", "rows", "started_at", "finished_at")


@dataclass(frozen=True)
class ImportRecord:
    """One import. `state` is running, done, undone (taken back), removing (its process died or it failed), broken
    (its `rows` were removed) or told (broken, and a person knows). Times are ISO 8601 in UTC."""

    id: int
    dataset: str
    file: str
    person: str
    state: str
    rows: int
    started_at: str
    finished_at: str


class ImportRecords:
    """The imports of one database. `now` gives the time as the database keeps it."""

    def __init__(self, database: Database, changes: Changes, now: Callable[[], str]) -> None:
        self._database, self._changes, self._now = database, changes, now
        self._table, self._examples = database.imports, database.examples

    def hidden(self, connection: sa.Connection) -> list[int]:
        """The ids of the imports whose rows are not there for anybody."""
        return list(connection.execute(sa.select(self._table.c.id).where(self._table.c.state.in_(_HIDDEN))).scalars())

    def all(self) -> list[ImportRecord]:
        """Newest first."""
        columns = [self._table.c[name] for name in _COLUMNS]
        with self._database.read() as connection:
            return [
                ImportRecord(*row) for row in connection.execute(sa.select(*columns).order_by(self._table.c.id.desc()))
            ]

    def begin(self, dataset: str, file: str, person: str) -> int:
        """A new import that this process makes; gives its id."""
        with self._database.write() as connection:
            last = connection.execute(sa.select(sa.func.max(self._examples.c.id))).scalar_one() or 0
            values = {
                "dataset": dataset, "file": file, "person": person, "state": "running", "rows": 0,
                "process": json.dumps(this_process()), "started_at": self._now(), "finished_at": "",
                "first_id": last + 1,
            }  # fmt: skip
            return connection.execute(sa.insert(self._table).values(values)).inserted_primary_key[0]

    def add(self, import_id: int, rows: list[dict[str, Any]]) -> None:
        """One portion. Raises StudioError `import-gone` where the import is under way no more."""
        with self._database.write() as connection:
            self._require(connection, import_id, "running")
            connection.execute(sa.insert(self._examples), [row | {"import_id": import_id} for row in rows])
            more = {"rows": self._table.c.rows + len(rows)}
            connection.execute(sa.update(self._table).where(self._table.c.id == import_id).values(more))

    def complete(self, import_id: int) -> ImportRecord:
        """Shows all rows at once. An earlier import of the same file that was broken off is told with that."""
        table = self._table
        with self._database.write() as connection:
            record = self._require(connection, import_id, "running")
            again = sa.and_(table.c.state == "broken", table.c.dataset == record.dataset, table.c.file == record.file)
            connection.execute(sa.update(table).where(again).values(state="told"))
            self._note(connection, import_id)
            return self._become(connection, import_id, "done")

    def undo(self, import_id: int) -> tuple[ImportRecord, int]:
        """Takes a complete import back: (the import, how many of its rows stay because somebody changed them).

        Raises StudioError `import-gone` for one that is not there, not complete or taken back already.
        """
        with self._database.write() as connection:
            record = self._require(connection, import_id, "done")
            own = sa.select(sa.func.count()).where(self._examples.c.import_id == import_id)
            changed = record.rows - connection.execute(own).scalar_one()
            self._note(connection, import_id)
            return self._become(connection, import_id, "undone"), changed

    def forget(self, import_id: int) -> None:
        """A person knows that the import was broken off."""
        with self._database.write() as connection:
            self._require(connection, import_id, "broken")
            self._become(connection, import_id, "told")

    def remove(self, import_id: int) -> None:
        """Ends an import that failed, and removes what had come in, in portions."""
        with self._database.write() as connection:
            self._become(connection, import_id, "removing")
        self._remove_rows(import_id)
        with self._database.write() as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.id == import_id))

    def remove_broken(self) -> list[ImportRecord]:
        """Removes the rows of imports whose process is no longer there; gives those imports."""
        table = self._table
        unfinished = sa.select(table.c.id, table.c.process).where(table.c.state.in_(("running", "removing")))
        with self._database.read() as connection:
            found = connection.execute(unfinished).all()
        broken = []
        for import_id in (import_id for import_id, process in found if not is_there(json.loads(process))):
            with self._database.write() as connection:
                self._become(connection, import_id, "removing")
            self._remove_rows(import_id)
            with self._database.write() as connection:
                broken.append(self._become(connection, import_id, "broken"))
        return broken

    def _remove_rows(self, import_id: int) -> None:
        examples = self._examples
        with self._database.read() as connection:
            first = sa.select(self._table.c.first_id).where(self._table.c.id == import_id)
            after = connection.execute(first).scalar_one() - 1
        while True:
            own = sa.select(examples.c.id).where(examples.c.id > after, examples.c.import_id == import_id)
            with self._database.write() as connection:
                ids = connection.execute(own.order_by(examples.c.id).limit(PORTION_ROWS)).scalars().all()
                connection.execute(sa.delete(examples).where(examples.c.id.in_(ids)))
            if not ids:
                return
            after = ids[-1]
            self._database.pause()

    def _note(self, connection: sa.Connection, import_id: int) -> None:
        """Its rows become seen or hidden."""
        datasets = sa.select(self._examples.c.dataset).where(self._examples.c.import_id == import_id).distinct()
        self._changes.note(connection, connection.execute(datasets).scalars().all())

    def _require(self, connection: sa.Connection, import_id: int, state: str) -> ImportRecord:
        chosen = sa.select(*(self._table.c[name] for name in _COLUMNS)).where(self._table.c.id == import_id)
        row = connection.execute(chosen.with_for_update()).first()
        if row is None or row.state != state:
            raise StudioError("import-gone", id=import_id)
        return ImportRecord(*row)

    def _become(self, connection: sa.Connection, import_id: int, state: str) -> ImportRecord:
        changes = {"state": state, "finished_at": self._now()}
        connection.execute(sa.update(self._table).where(self._table.c.id == import_id).values(changes))
        return self._require(connection, import_id, state)


def portions(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in lists that are quick to write."""
    portion, characters = [], 0
    for row in rows:
        portion.append(row)
        characters += len(row["instruction"]) + len(row["input"]) + len(row["target"])
        if len(portion) >= PORTION_ROWS or characters >= PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion
