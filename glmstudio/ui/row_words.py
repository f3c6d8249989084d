"""What is said about rows by the number, for page and command line: kinds of rows, imports, what a start has found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.file_names import is_fit, shown
from glmstudio.ui.language import error_text, t

if TYPE_CHECKING:
    from glmstudio.data.example import Reject
    from glmstudio.data.import_records import ImportRecord
    from glmstudio.data.reading.reader import Told
    from glmstudio.data.row_reader import DatasetSummary


def kinds_text(kinds: Mapping[tuple[str, str], int], language: str) -> str:
    """Rows counted by (split, status) in words: "320 train, 80 dev, 12 drafts"."""
    counts: Counter[str] = Counter()
    for (split, status), rows in kinds.items():
        counts[split if status == "done" else status] += rows
    parts = [
        t(f"counted.{name}", language, count=f"{counts[name]:,}")
        for name in ("train", "dev", "draft", "discarded")
        if counts[name]
    ]
    return t("counted.and", language).join(parts) or t("counted.none", language)


def reject_text(reject: "Reject", language: str) -> str:
    """Why a row of a file did not come in."""
    params = dict(reject.params)
    if "error" in params:
        params["reason"] = error_text(params.pop("error"), language)
    return t(f"reject.{reject.code}", language, **params)


def place_text(reject: "Reject", language: str) -> str:
    """Where it is: a row by its line, in a file of one line by its number."""
    line, row = reject.line, reject.row
    code = "row" if line <= 1 < row or not line else "line" if row in (0, line) else "line-row"
    file = f"{shown(reject.file)} " if reject.file else ""
    return file + (t(f"reject.place-{code}", language, line=line, row=row) if line or row else "")


def told_lines(told: "Told", language: str) -> list[str]:
    """What became of values that did not come in as they were, and how a file was read that is no UTF-8."""
    told_of = {"annotate.ignored": told.ignored, "told.made-text": told.made_text, "told.left": told.left}
    lines = [
        t(key, language, columns=", ".join(f"{shown(name)} ({count:,})" for name, count in counts.items()))
        for key, counts in told_of.items()
        if counts
    ]
    if others := [name for name in told.encodings if name != "UTF-8"]:
        lines.append(t("told.encoding", language, encodings=", ".join(others)))
    return lines


def known_lines(known: int, language: str, *, command: bool = False) -> list[str]:
    """How many rows stay out because the dataset has them."""
    key = "told.known.command" if command else "told.known"
    return [t(key, language, count=f"{known:,}")] if known else []


def undone_text(record: "ImportRecord", stay: int, language: str) -> str:
    """What an import that was taken back has left."""
    words = {"id": record.id, "file": shown(record.file), "dataset": shown(record.dataset)}
    text = t("counted.import-undone", language, count=f"{record.rows - stay:,}", **words)
    return text + (" " + t("counted.import-stay", language, count=f"{stay:,}") if stay else "")


def broken_text(record: "ImportRecord", language: str) -> str:
    """An import whose process died."""
    words = {"file": shown(record.file), "dataset": shown(record.dataset), "time": record.started_at[:16]}
    return t("counted.import-broken", language, count=f"{record.rows:,}", **words)


def opening_lines(broken: Sequence["ImportRecord"], copy: Path | None, language: str) -> list[str]:
    """What the opening of a workspace has found: broken imports, and the copy of a database of an older version."""
    lines = [t("counted.database-copied", language, copy=copy)] if copy else []
    return [*lines, *(broken_text(record, language) for record in broken)]


def to_rename(summaries: Sequence["DatasetSummary"]) -> list[str]:
    """The names of datasets that no new one could have."""
    return [summary.name for summary in summaries if not is_fit(summary.name)]


def dataset_choices(summaries: Sequence["DatasetSummary"]) -> list[tuple[str, str]]:
    """(label, name) of each dataset that can be chosen; names that need another one are marked."""
    names = (summary.name for summary in summaries if summary.name)
    return [(name if is_fit(name) else f"⚠ {shown(name)}", name) for name in names]


def lines_html(lines: Sequence[str], kind: str) -> str:
    """One paragraph each, in the colour of `kind` ("glm-warn", "glm-ok" or none)."""
    return "".join(f'<p class="{kind}">{escape(line)}</p>' for line in lines)
