"""Judged answers beside the rows that they became: who answered how, right or wrong, by whom, when. Knows no model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from glmstudio.data.database import Database
from glmstudio.data.example import Example


@dataclass(frozen=True)
class Answerer:
    """What gave an answer: `base` is a source and `fingerprint` that of its weights, `adapter` a checkpoint's name and
    `digest` that of its content, all "" where there is none or nobody knows; `settings` are those of the generation."""

    base: str
    fingerprint: str = ""
    adapter: str = ""
    digest: str = ""
    prompt_style: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """An answer as it was given, and whether a person found it right."""

    answer: str
    correct: bool
    by: Answerer
    person: str = ""


@dataclass(frozen=True)
class Verdict:
    """A kept judgement; it was saved with that revision of the row. `created_at` is ISO 8601 in UTC."""

    id: int
    example_id: int
    revision: int
    judgement: Judgement
    created_at: str


class Verdicts:
    """The verdicts of one database, in the order in which they were given."""

    def __init__(self, database: Database) -> None:
        self._database, self._table = database, database.verdicts

    def keep(self, connection: sa.Connection, saved: Example, judgement: Judgement) -> None:
        """Within the transaction that has saved the row."""
        by = judgement.by
        values = vars(by) | {"settings": json.dumps(by.settings, ensure_ascii=False, sort_keys=True)}
        judged = {"answer": judgement.answer, "correct": int(judgement.correct), "person": judgement.person}
        row = {"example_id": saved.id, "revision": saved.revision, "created_at": saved.updated_at}
        connection.execute(sa.insert(self._table).values(values | judged | row))

    def of(self, example_id: int) -> list[Verdict]:
        """All that were given about one row."""
        chosen = sa.select(self._table).where(self._table.c.example_id == example_id).order_by(self._table.c.id)
        with self._database.read() as connection:
            return [_verdict(row) for row in connection.execute(chosen)]

    def newest(self) -> Iterator[Verdict]:
        """Of every answer to every row the last one: who thinks again is taken at the second word."""
        columns = self._table.c
        last = sa.select(sa.func.max(columns.id)).group_by(columns.example_id, columns.answer)
        chosen = sa.select(self._table).where(columns.id.in_(last)).order_by(columns.id)
        with self._database.read() as connection:
            rows = connection.execute(chosen).all()
        yield from map(_verdict, rows)


def _verdict(row: sa.Row[Any]) -> Verdict:
    by = Answerer(row.base, row.fingerprint, row.adapter, row.digest, row.prompt_style, json.loads(row.settings))
    judgement = Judgement(row.answer, bool(row.correct), by, row.person)
    return Verdict(row.id, row.example_id, row.revision, judgement, row.created_at)
