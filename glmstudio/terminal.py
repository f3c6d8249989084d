"""What the command line prints: progress of a run, findings, rejected lines, scores, two answers. English only."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import quantities
from glmstudio.data.example import Reject
from glmstudio.errors import StudioError
from glmstudio.training import metrics
from glmstudio.ui.language import error_text, finding_text, in_numbers, t
from glmstudio.ui.row_words import reject_text

if TYPE_CHECKING:
    from glmstudio.data.quality import Finding
    from glmstudio.inference.compare import Comparison
    from glmstudio.training.estimate import Estimate
    from glmstudio.training.runs import Run, RunFolder
    from glmstudio.training.train import Progress

SECONDS_BETWEEN_LINES = 2.0
SECONDS_BETWEEN_REDRAWS = 0.2
# Fewer rows are tokens before anybody asks.
MANY_ROWS = 5000
# Of one reason.
_MOST_REJECTS = 20


class RunPrinter:
    """Prints the run's new metric records: each train record with `every`, else one in two seconds."""

    def __init__(self, folder: "RunFolder", every: int | None) -> None:
        self._path = folder.metrics_path
        self._every = every
        self._offset = 0
        self._printed = 0.0

    def __call__(self, progress: "Progress") -> None:
        if progress.phase == "preparing":
            # A run that goes on has records that were printed when it was begun.
            _, self._offset = metrics.read_from(self._path)
            return
        records, self._offset = metrics.read_from(self._path, self._offset)
        for record in records:
            if record.kind == "train":
                self._train_line(record, progress)
            elif record.kind == "eval":
                print(f"  dev loss {record.values['loss']:.5f} at step {record.step}", flush=True)
            elif record.kind == "event" and record.values["code"] == "best":
                former = record.values.get("former")
                change = f"{former:.5f} --> " if former is not None else ""
                print(f"  best dev loss {change}{record.values['loss']:.5f}; adapter kept in best/", flush=True)
            elif record.kind == "event" and record.values["code"] == "stopped-early":
                print(f"  no better dev loss since step {record.values['best_step']}: stopped early", flush=True)
            elif record.kind == "event" and record.values["code"] == "token-budget-halved":
                before, after = record.values["from"], record.values["to"]
                print(f"  memory ran out: token budget {before} --> {after}; the step is made again", flush=True)

    def _train_line(self, record: metrics.MetricRecord, progress: "Progress") -> None:
        if self._every is None and time.monotonic() - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = time.monotonic()
        share = 100 * record.step / max(progress.total, 1)
        print(
            f"step {record.step}/{progress.total} ({share:.2f}%), epoch {record.epoch:.2f}, "
            f"loss {record.values['loss']:.5f}, {quantities.rate(progress.steps_per_second)} steps/s, "
            f"{quantities.rate(progress.tokens_per_second)} tokens/s, ETA {clock(progress.seconds_left)}",
            flush=True,
        )

    def close(self, run: "Run") -> None:
        best = (
            f", best dev loss {run.best_eval_loss:.5f} at step {run.best_step}"
            if run.best_eval_loss is not None
            else ""
        )
        ended = "stopped early" if run.stopped_early else run.status
        print(f"{ended} at step {run.step}/{run.total}{best}: {self._path.parent}")


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds as hh:mm:ss; dashes while unknown."""
    if seconds is None:
        return "--:--:--"
    whole = round(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def print_estimate(found: "Estimate", dtype: str, reason: str) -> None:
    """With the numbers that the base computes in, and why in these."""
    need, room = quantities.size(found.total), quantities.size(found.room)
    pace = "too little for measuring the speed" if found.seconds is None else f"about {clock(found.seconds)}"
    budget = f", {found.token_budget:,} tokens at a time" if found.token_budget else ""
    checkpointing = ", gradient checkpointing" if found.gradient_checkpointing else ""
    numbers = in_numbers(dtype, reason, "en")
    print(f"estimate: {need} of {room}, {pace}, {numbers}{budget}{checkpointing}", flush=True)


def print_finding(finding: "Finding") -> None:
    print(f"{finding.severity}: {finding_text(finding, 'en', command=True)}", file=sys.stderr)


def print_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Each with its place, but of many for one reason only the first and their number."""
    for code, count in Counter(reject.code for reject in rejects).items():
        alike = [reject for reject in rejects if reject.code == code]
        for reject in alike[:_MOST_REJECTS]:
            _print_reject(path, reject)
        if (more := count - _MOST_REJECTS) > 0:
            print(f"{path}: {t('told.more-rejects', 'en', count=f'{more:,}')}", file=sys.stderr)


def _print_reject(path: Path, reject: Reject) -> None:
    """The place as compilers write it, for editors; the number of the row where it is not that of the line."""
    place = str(path / reject.file)
    if reject.line > 1 or (reject.line and reject.row <= 1):
        place += f":{reject.line}"
    if reject.row not in (0, reject.line):
        place += f": row {reject.row}"
    print(f"{place}: {reject_text(reject, 'en')}", file=sys.stderr)


def print_stage(stage: str, done: int = 0, total: int = 0) -> None:
    """How many rows of a run that is made ready have become tokens, where that takes a while."""
    if stage == "rendering" and total >= MANY_ROWS:
        print_count(done, total)


def print_count(done: int, total: int) -> None:
    print(f"\r{done}/{total} rows", end="" if done < total else "\n", file=sys.stderr, flush=True)


class DownloadPrinter:
    """Keeps one line of stderr up to date while a model comes from a hub; as `load_base` calls it.

    Silent where all of it was here before."""

    def __init__(self) -> None:
        self._printed = 0.0

    def __call__(self, done: int, total: int, file: str) -> None:
        whole = done == total
        if whole and not self._printed:
            return
        if not whole and time.monotonic() - self._printed < SECONDS_BETWEEN_REDRAWS:
            return
        self._printed = time.monotonic()
        line = f"{quantities.size(done)} of {quantities.size(total)} ({done / max(total, 1):.0%}) {file}"
        print(f"\r{line:<80.80}", end="\n" if whole else "", file=sys.stderr, flush=True)


def print_scores(result: dict[str, Any]) -> None:
    """A line a score: base and tuned in two columns, counts behind."""
    columns = [name for name in ("base", "tuned") if result.get(name)]
    if result["cancelled"]:
        print(f"{len(result['rows'])} of {result['total']} rows: stopped before the others were answered")
    print(f"{'':18}" + "".join(f"{name:>10}" for name in columns))
    for key, value in result["base"].items():
        if isinstance(value, float) or value is None:
            cells = (result[name][key] for name in columns)
            print(f"{key:18}" + "".join(f"{'-' if cell is None else format(cell, '.4f'):>10}" for cell in cells))
    cut = {name: sum(name in row["cut"] for row in result["rows"]) for name in columns}
    if any(cut.values()):
        counts = ", ".join(f"{name} {count} of {len(result['rows'])}" for name, count in cut.items())
        print(f"answers cut at {result['max_new_tokens']} tokens: {counts}; --max-new-tokens allows more")


def print_comparison(comparison: "Comparison") -> None:
    for name, row in zip(("base", "tuned"), comparison.rows, strict=False):
        ref = comparison.adapter if name == "tuned" else None
        version = f" (step {ref.step:,}, {ref.digest})" if ref else ""
        print(f"--- {name}{version}: {row.tokens} tokens, {row.seconds:.1f} s, {row.finish_reason}")
        print(row.text)


def print_error(error: StudioError) -> None:
    print(f"glmstudio: {error_text(error, 'en', command=True)}", file=sys.stderr)
    for finding in error.params.get("findings", ()):
        print_finding(finding)
