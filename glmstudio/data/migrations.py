"""Numbered steps that bring a database to today's schema. Knows tables, columns and indexes; knows no example.

The steps are the only place that spells the schema: `store` reads the tables back from the database. A step that was
ever released is never edited; a change is a new function at the end of `STEPS`.
"""

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    update,
)

from glmstudio.errors import StudioError

_WORDS = ("dataset", "split", "status", "source", "annotator", "instruction", "input", "target", "tags")

_SCHEMA = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))


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


def _create_imports(connection: Connection) -> None:
    words = [Column(name, String, nullable=False) for name in ("dataset", "file", "person", "state", "process")]
    times = [Column(name, String, nullable=False) for name in ("started_at", "finished_at")]
    numbers = [Column(name, Integer, nullable=False) for name in ("rows", "first_id")]
    columns = (Column("id", Integer, primary_key=True), *words, *times, *numbers)
    Table("imports", MetaData(), *columns, sqlite_autoincrement=True).create(connection)
    connection.execute(DDL("ALTER TABLE examples ADD COLUMN import_id INTEGER NOT NULL DEFAULT 0"))
    connection.execute(DDL("DROP INDEX examples_by_filter"))
    examples = Table("examples", MetaData(), autoload_with=connection)
    filters = (examples.c[name] for name in ("dataset", "split", "status", "source", "deleted_at", "import_id"))
    Index("examples_by_filter", *filters).create(connection)


def _create_verdicts(connection: Connection) -> None:
    numbers = [Column(name, Integer, nullable=False) for name in ("example_id", "revision", "correct")]
    answerer = ("base", "fingerprint", "adapter", "digest", "prompt_style", "settings")
    words = [Column(name, String, nullable=False) for name in ("answer", *answerer, "person", "created_at")]
    verdicts = Table("verdicts", MetaData(), Column("id", Integer, primary_key=True), *numbers, *words)
    verdicts.create(connection)
    Index("verdicts_by_example", verdicts.c.example_id).create(connection)


def _count_changes(connection: Connection) -> None:
    columns = (Column("dataset", String, primary_key=True), Column("number", Integer, nullable=False))
    Table("changes", MetaData(), *columns).create(connection)


STEPS = (
    _create_examples,
    _create_revisions,
    _index_for_pages_and_counts,
    _create_imports,
    _create_verdicts,
    _count_changes,
)


def schema_of(connection: Connection) -> int:
    """How many of the steps this database has seen; 0 for one that is new.

    Raises StudioError `database-newer` when it was written by a later version of the program.
    """
    if not inspect(connection).has_table(_SCHEMA.name):
        return 0
    schema = connection.execute(select(_SCHEMA.c.version)).scalar_one()
    if schema > len(STEPS):
        raise StudioError("database-newer", found=schema, known=len(STEPS))
    return schema


def migrate(connection: Connection) -> None:
    """Runs the steps that this database has not seen, inside the caller's transaction. Raises as `schema_of` does."""
    schema = schema_of(connection)
    if schema == len(STEPS):
        return
    if schema == 0:
        _SCHEMA.create(connection, checkfirst=True)
        connection.execute(delete(_SCHEMA))
        connection.execute(insert(_SCHEMA).values(version=0))
    for step in STEPS[schema:]:
        step(connection)
    connection.execute(update(_SCHEMA).values(version=len(STEPS)))
