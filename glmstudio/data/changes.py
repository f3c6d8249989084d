"""How often the rows of each dataset were changed, by whichever process. Knows no row."""

from collections.abc import Iterable

import sqlalchemy as sa

from glmstudio.data.database import Database


class Changes:
    """A number for each dataset that grows with every write that changes which rows it has or what is in them, in the
    same transaction. Looking at it costs the same however many rows there are."""

    def __init__(self, database: Database) -> None:
        self._database, self._table = database, database.changes

    def note(self, connection: sa.Connection, datasets: Iterable[str]) -> None:
        """Within a transaction that changes rows of these."""
        number, name = self._table.c.number, self._table.c.dataset
        for dataset in set(datasets):
            one_more = sa.update(self._table).where(name == dataset).values(number=number + 1)
            if not connection.execute(one_more).rowcount:
                connection.execute(sa.insert(self._table).values(dataset=dataset, number=1))

    def all(self) -> dict[str, int]:
        """The numbers of the datasets that were ever changed."""
        with self._database.read() as connection:
            return dict(connection.execute(sa.select(self._table.c.dataset, self._table.c.number)).all())

    def of(self, connection: sa.Connection, dataset: str) -> int:
        """The number of one dataset, as of this transaction."""
        chosen = sa.select(self._table.c.number).where(self._table.c.dataset == dataset)
        return connection.execute(chosen).scalar() or 0
