"""The page's benchmark: its table, what it says without a browser, and a small measurement of the real program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glmstudio.benchmarks.page import page_table
from glmstudio.benchmarks.page_parts import Figure
from glmstudio.benchmarks.page_workspace import (
    LARGE,
    LONG,
    LONG_BYTES,
    SMALL,
    SMALL_DEV,
    SMALL_TRAIN,
    add_long_row,
    prepare,
)
from glmstudio.cli import main
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_says_which_goals_are_reached() -> None:
    figures = [
        Figure("idle", "server", 0.097, "share", 0.03),
        Figure("train", "steps", 9.5, "steps/s", 9.0),
        Figure("list", "a page", 0.25, "s", 0.3, 0.125),
        Figure("train", "server", 0.5, "share"),
    ]
    _, _, *lines = page_table([vars(figure) for figure in figures]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[2:] for row in cells] == [
        ["9.7%", "", "≤ 3.0%", "no"],
        ["9.5 steps/s", "", "≥ 9.0 steps/s", "yes"],
        ["250 ms", "0.12", "≤ 300 ms", "yes"],
        ["50.0%", "", "", ""],
    ]


def test_without_a_browser_the_command_says_how_to_get_one(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert main(["bench", "page"]) == 2
    assert "pip install -r tests/requirements.txt" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "page", "--part", "everything"])


def test_the_workspace_has_the_rows_that_the_parts_count_on(tmp_path) -> None:
    workspace = prepare(tmp_path, rows=60, runs=0)
    add_long_row(workspace)
    store = Store(workspace.database_url)
    counts = {found.name: (found.train, found.dev) for found in store.datasets()}
    newest = store.page(Query(), limit=1).rows[0]
    store.close()
    assert counts == {LARGE: (58, 2), SMALL: (SMALL_TRAIN, SMALL_DEV), LONG: (1, 0)}
    assert len(newest.input.encode()) == pytest.approx(LONG_BYTES, rel=0.01)


@pytest.mark.ui
@pytest.mark.slow
def test_the_real_program_is_measured_in_a_real_browser() -> None:
    # In a process of its own: other tests of this one may hold a browser.
    code = (
        "import json; from glmstudio.benchmarks.page import PageBench, bench_page\n"
        "bench = PageBench(('list', 'idle'), rows=30, runs=0, pages=(0, 1), seconds=0.6, rounds=1)\n"
        "print(json.dumps(bench_page(bench)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    records = json.loads(done.stdout.splitlines()[-1])
    assert len(records) == 5 + 1 + 2 * 2
    assert all(record["value"] > 0 for record in records if record["part"] == "list")
    assert all(0 <= record["value"] < 8 for record in records if record["part"] == "idle")
