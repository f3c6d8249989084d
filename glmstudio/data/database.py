"""One database: its connections, its transactions and its tables. Knows no example, no import and no words.

SQLite is the default, other SQLAlchemy URLs hold in principle.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from glmstudio.data.migrations import STEPS, migrate, schema_of
from glmstudio.errors import StudioError

BUSY_SECONDS = 30
PAUSE_SECONDS = 0.005
# How often a writer looks whether it is its turn: several times in a pause.
_LOOK_SECONDS = 0.001


class Database:
    """`read` and `write` are one transaction each and may be used from any thread. They raise StudioError
    `database-failed` with the driver's reason when the database cannot be used. `copy` is where the former database was
    kept before this one was brought to today's schema, None where nothing was to be done."""

    def __init__(self, url: str) -> None:
        """Opens or creates the database and brings it to today's schema.

        Raises StudioError `database-newer`, and `database-not-copied` where an older one cannot be kept beside.
        """
        self._engine = sa.create_engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(writes=True)
        self._name = self._engine.url.render_as_string(hide_password=True)
        self.copy: Path | None = None
        with self.write() as connection:
            schema = schema_of(connection)
            if 0 < schema < len(STEPS) and self.is_sqlite:
                self.copy = self._keep_copy(schema)
            migrate(connection)
            tables = sa.MetaData()
            self.examples, self.revisions, self.imports, self.verdicts, self.changes = (
                sa.Table(name, tables, autoload_with=connection)
                for name in ("examples", "revisions", "imports", "verdicts", "changes")
            )

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Waits its turn, `BUSY_SECONDS` at most."""
        with self._transaction(self._writer) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StudioError("database-failed", database=self._name, reason=str(error.orig)) from error

    def pause(self) -> None:
        """Between two portions of long work: whoever waits to write begins now."""
        time.sleep(PAUSE_SECONDS)

    def _keep_copy(self, schema: int) -> Path:
        """Copies the database as it was committed last into a new file beside it."""
        path = Path(self._engine.url.database)
        stem, number = f"{path.stem}.schema-{schema}", 1
        while (copy := path.with_name(f"{stem}{f'-{number}' if number > 1 else ''}{path.suffix}")).exists():
            number += 1
        try:
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        except (sqlite3.Error, OSError) as error:
            copy.unlink(missing_ok=True)
            raise StudioError("database-not-copied", database=str(path), copy=copy.name, reason=str(error)) from error
        return copy


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The driver must not open transactions itself: its late BEGIN makes two writers fail at once instead of waiting.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", f"busy_timeout = {BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN")
        return
    # SQLite's own wait looks ten times a second in the end, and would miss the pauses of an import.
    driver, until = connection.connection.dbapi_connection, time.monotonic() + BUSY_SECONDS
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while time.monotonic() < until:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
                time.sleep(_LOOK_SECONDS)
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
