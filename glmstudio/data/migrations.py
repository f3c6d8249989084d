"""Numbered steps that bring a database to today's schema. Knows tables, columns and indexes; knows no example.

The steps are the only place that spells the schema: `store` reads the tables back from the database. A step that was
ever released is never edited; a change is a new function at the end of `STEPS`.
"""

from sqlalchemy import Column, Connection, Index, Integer, MetaData, String, Table, insert, inspect, select, update

from glmstudio.errors import StudioError

_WORDS = ("dataset", "split", "status", "source", "annotator", "instruction", "input", "target", "tags")


def _create_examples(connection: Connection) -> None:
    words = [Column(name, String, nullable=False) for name in (*_WORDS, "created_at", "updated_at", "deleted_at")]
    columns = (Column("id", Integer, primary_key=True), Column("revision", Integer, nullable=False), *words)
    Table("examples", MetaData(), *columns, sqlite_autoincrement=True).create(connection)


def _create_revisions(connection: Connection) -> None:
    words = [Column(name, String, nullable=False) for name in (*_WORDS, "updated_at")]
    numbers = [Column(name, Integer, nullable=False) for name in ("example_id", "revision", "undone")]
    Table("revisions", MetaData(), Column("id", Integer, primary_key=True), *numbers, *words).create(connection)


def _index_for_pages_and_counts(connection: Connection) -> None:
    examples, revisions = (Table(name, MetaData(), autoload_with=connection) for name in ("examples", "revisions"))
    filters = (examples.c[name] for name in ("dataset", "split", "status", "source", "deleted_at"))
    Index("examples_by_filter", *filters).create(connection)
    Index("revisions_by_example", revisions.c.example_id, revisions.c.revision).create(connection)


STEPS = (_create_examples, _create_revisions, _index_for_pages_and_counts)


def migrate(connection: Connection) -> None:
    """Runs the steps that this database has not seen, inside the caller's transaction.

    Raises StudioError `database-newer` when the database was written by a later version of the program.
    """
    schema = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))
    if not inspect(connection).has_table(schema.name):
        schema.create(connection)
        connection.execute(insert(schema).values(version=0))
    version = connection.execute(select(schema.c.version)).scalar_one()
    if version > len(STEPS):
        raise StudioError("database-newer", found=version, known=len(STEPS))
    for step in STEPS[version:]:
        step(connection)
    connection.execute(update(schema).values(version=len(STEPS)))
