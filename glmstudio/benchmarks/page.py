"""The benchmark of the page: what looking costs the server, the browser and a run. Knows no page's inside."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glmstudio.benchmarks import page_parts
from glmstudio.benchmarks.browser import chromium
from glmstudio.benchmarks.page_program import running
from glmstudio.benchmarks.page_workspace import prepare
from glmstudio.benchmarks.tables import table

# In this order: the first check of all is that of the first page that is opened.
PARTS = {"check": page_parts.check, "list": page_parts.rows, "idle": page_parts.idle, "train": page_parts.train}


@dataclass(frozen=True)
class PageBench:
    """What is measured, in a workspace of `rows` rows and `runs` finished runs: `pages` are the numbers of pages that
    stand idle, `seconds` the length of a window of time, `rounds` how often a thing is done."""

    parts: Sequence[str] = tuple(PARTS)
    rows: int = 20_000
    runs: int = 100
    pages: Sequence[int] = (0, 1, 3)
    seconds: float = 15.0
    rounds: int = 4


def bench_page(bench: PageBench, *, tell: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """The figures of all parts, of one start of the program. Raises StudioError `bench-browser`, `bench-failed`."""
    with chromium() as browser, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tell(f"a workspace of {bench.rows:,} rows and {bench.runs} runs")
        workspace = prepare(Path(folder), bench.rows, bench.runs)
        with running(Path(folder)) as program:
            place = page_parts.Bench(program, browser, workspace, tuple(bench.pages), bench.seconds, bench.rounds, tell)
            return [asdict(figure) for part in PARTS if part in bench.parts for figure in PARTS[part](place)]


def page_table(records: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table: shares are of one core, `CPU s` that of server and pages together."""
    head = ("part", "what", "measured", "CPU s", "goal", "reached")
    return table(head, [_row(record) for record in records])


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    value, goal, least = record["value"], record["goal"], record["unit"] in _AT_LEAST
    reached = "" if goal is None else "yes" if (value >= goal if least else value <= goal) else "no"
    return (
        record["part"],
        record["what"],
        _shown(value, record["unit"]),
        "" if record["cpu"] is None else f"{record['cpu']:.2f}",
        "" if goal is None else f"{'≥' if least else '≤'} {_shown(goal, record['unit'])}",
        reached,
    )


_AT_LEAST = ("steps/s", "ratio")


def _shown(value: float, unit: str) -> str:
    if unit in ("share", "ratio"):
        return f"{value:.1%}"
    return f"{value * 1000:,.0f} ms" if unit == "s" and value < 10 else f"{value:,.1f} {unit}"
