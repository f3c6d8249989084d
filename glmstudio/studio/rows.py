"""Studio's verbs for rows and datasets: save, page, import, export, rename, judge. Knows no model, page or word."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from glmstudio.data import formats, imports
from glmstudio.data.example import Example
from glmstudio.data.import_records import ImportRecord
from glmstudio.data.imports import ImportOptions, ImportPreview
from glmstudio.data.reading.reader import ReadOptions
from glmstudio.data.row_reader import DatasetSummary, Page, Query
from glmstudio.data.row_starts import StartsPage
from glmstudio.data.store import Store
from glmstudio.data.verdicts import Judgement
from glmstudio.errors import StudioError
from glmstudio.file_names import file_name, is_fit, require_fit, shown
from glmstudio.studio.people import Person


@dataclass(frozen=True)
class Exported:
    """A written file, how many rows of each (split, status) it holds, and how many of the query it does not."""

    path: Path
    rows: Counter[tuple[str, str]]
    left: Counter[tuple[str, str]]


class RowVerbs:
    """The verbs over one store. New datasets get names that `file_names.require_fit` lets through; those that are there
    already stay usable under any name."""

    _store: Store
    _person: Person

    def save_example(
        self, example: Example, expected_revision: int | None = None, judgement: Judgement | None = None
    ) -> Example:
        """Inserts or updates one row as the caller's, and keeps the judgement that it was made of as theirs.

        Raises StudioError `stale-revision` with the current row, `example-empty`, `name-empty`, `name-unfit`.
        """
        if not example.instruction.strip() and not example.input.strip():
            raise StudioError("example-empty")
        self._require_name(example.dataset)
        mine = replace(example, annotator=self._person.name)
        if judgement is not None:
            judgement = replace(judgement, person=self._person.name)
        return self._store.save(mine, expected_revision=expected_revision, judgement=judgement)

    def save_feedback(self, instruction: str, input: str, target: str, dataset: str, judgement: Judgement) -> Example:
        """A judged answer becomes an example: `target` is the right answer, corrected or as it was."""
        row = Example(instruction, input, target, dataset=dataset, source="feedback")
        return self.save_example(_tagged(row, judgement), judgement=judgement)

    def judge_again(self, row: Example, target: str, judgement: Judgement) -> Example:
        """A second thought on the row that a verdict has made or changed. Raises as `save_example` does."""
        judged = _tagged(row, judgement) if row.source == "feedback" else row
        return self.save_example(replace(judged, target=target), row.revision, judgement)

    def dev_row(self, instruction: str, input: str, dataset: str) -> Example | None:
        """The dev row of the dataset that asks exactly this: stored as a train row, too, it would leak."""
        return self._store.find(instruction, input, dataset=dataset, split="dev")

    def judge_dev_row(self, row: Example, target: str, split: str, judgement: Judgement) -> Example:
        """A verdict on a dev row: its target is corrected, and it stays one or, with `split` "train", leaves dev.
        Raises as `save_example` does."""
        changed = replace(row, target=target, split=split, status="done")
        return self.save_example(changed, row.revision, judgement)

    def get_example(self, example_id: int) -> Example:
        return self._store.get(example_id)

    def delete_examples(self, ids: list[int]) -> int:
        return self._store.delete(ids)

    def restore_examples(self, ids: list[int]) -> int:
        return self._store.restore(ids)

    def undo_save(self, example_id: int, expected_revision: int | None = None) -> Example | None:
        return self._store.undo_save(example_id, expected_revision=expected_revision)

    def page(self, query: Query, offset: int = 0, limit: int = 20) -> Page:
        return self._store.page(query, offset=offset, limit=limit)

    def row_starts(self, query: Query, offset: int = 0, limit: int = 20) -> StartsPage:
        """As `page`, of each text what a list shows."""
        return self._store.starts(query, offset=offset, limit=limit)

    def row_after(self, query: Query, example_id: int) -> tuple[int, int] | None:
        """(id, place) of the row that follows in `page`'s order; None behind the last one."""
        return self._store.after(query, example_id)

    def datasets(self) -> list[DatasetSummary]:
        return self._store.datasets()

    def rename_dataset(self, name: str, new: str) -> int:
        """How many rows. Raises StudioError `name-empty`, `name-unfit`, `dataset-missing`, `dataset-exists`."""
        require_fit(new)
        return self._store.rename_dataset(name, new)

    def require_dataset(self, name: str) -> None:
        """Raise StudioError `dataset-missing` with the names that there are, `name-empty` for none."""
        names = [summary.name for summary in self.datasets()]
        if not name:
            raise StudioError("name-empty")
        if name not in names:
            raise StudioError("dataset-missing", dataset=shown(name), names=", ".join(map(shown, filter(None, names))))

    def _require_name(self, name: str) -> None:
        if not is_fit(name) and name not in {summary.name for summary in self.datasets()}:
            require_fit(name)

    # Files

    def preview_import(
        self, path: Path, dataset: str, split: str = "train", options: ReadOptions | None = None, *, again: bool = False
    ) -> ImportPreview:
        """Reads the whole file and keeps nothing."""
        where = ImportOptions(dataset, split, options or ReadOptions(), again)
        return imports.preview(self._store, path, where)

    def import_file(
        self,
        path: Path,
        dataset: str,
        split: str = "train",
        on_progress: Callable[[int], None] = lambda rows: None,
        options: ReadOptions | None = None,
        *,
        again: bool = False,
    ) -> ImportPreview:
        """The good rows come in as an import of the caller's, the bad lines are reported; rows that the dataset has
        already come in only with `again`. Raises as `read` does, `name-empty` and `name-unfit`."""
        self._require_name(dataset)
        where = ImportOptions(dataset, split, options or ReadOptions(), again)
        return imports.take(self._store, path, where, self._person.name, on_progress)

    def undo_import(self, import_id: int) -> tuple[ImportRecord, int]:
        """Takes an import back: (the import, how many of its rows stay because somebody changed them).

        Raises StudioError `import-gone`.
        """
        return self._store.imports.undo(import_id)

    def imports(self) -> list[ImportRecord]:
        """Every import, the oldest first."""
        return self._store.imports.all()

    def remove_broken_imports(self) -> list[ImportRecord]:
        """Removes what imports have left whose process is no longer there; gives those."""
        return self._store.imports.remove_broken()

    def broken_imports(self) -> list[ImportRecord]:
        """Those that nobody has read about yet."""
        return [record for record in self.imports() if record.state == "broken"]

    def forget_import(self, import_id: int) -> None:
        """Somebody has read about a broken import. Raises StudioError `import-gone`."""
        self._store.imports.forget(import_id)

    def exported_rows(self, query: Query, *, drafts: bool) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
        """How many rows of each (split, status) `export_file` would write, and how many it would leave out."""
        counts = self._store.count(query)
        rows = Counter({kind: rows for kind, rows in counts.items() if _goes_out(kind[1], query, drafts)})
        return rows, counts - rows

    def export_file(self, query: Query, kind: str, folder: Path, *, drafts: bool = False) -> Exported:
        """Writes `<dataset>-<split>.<suffix>` into `folder`, as `export_to` does."""
        name = "-".join(part for part in (file_name(query.dataset) if query.dataset else "all", query.split) if part)
        return self.export_to(folder / f"{name}{formats.suffix(kind)}", query, kind, drafts=drafts)

    def export_to(self, path: Path, query: Query, kind: str, *, drafts: bool = False) -> Exported:
        """Writes the rows that are done, and with `drafts` those too; discarded ones only where the query asks for
        them. Where not all are train rows they get a column `split`, and where not all are done a column `status`,
        which an import reads. The file appears whole or not at all. Raises StudioError `file-not-written`."""
        rows, _ = self.exported_rows(query, drafts=drafts)
        while True:
            columns = _needed_columns(rows, query)
            rows = self._write(path, query, kind, columns, drafts=drafts)
            # Somebody may have saved the first dev row meanwhile.
            if set(_needed_columns(rows, query)) <= set(columns):
                return Exported(path, rows, self._store.count(query) - rows)

    def _write(
        self, path: Path, query: Query, kind: str, columns: list[str], *, drafts: bool
    ) -> Counter[tuple[str, str]]:
        rows: Counter[tuple[str, str]] = Counter()

        def counted() -> Iterator[Example]:
            for row in self._store.iterate(query):
                if _goes_out(row.status, query, drafts):
                    rows[row.split, row.status] += 1
                    yield row

        formats.write(path, counted(), kind, columns=columns)
        return rows


def _tagged(row: Example, judgement: Judgement) -> Example:
    """The row as a judged answer: right as it was, or corrected."""
    return replace(row, tags=("right",) if judgement.correct else ("corrected",))


def _needed_columns(rows: Counter[tuple[str, str]], query: Query) -> list[str]:
    """The columns without which an import would not give the same rows."""
    split = not query.split and any(split != "train" for split, _ in rows)
    status = any(status != "done" for _, status in rows)
    return [name for name, needed in (("split", split), ("status", status)) if needed]


def _goes_out(status: str, query: Query, drafts: bool) -> bool:
    return status == "done" or status == query.status or (drafts and status == "draft")
