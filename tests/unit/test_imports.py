"""Imports in portions: others save meanwhile, rows are there when all are, what was killed is removed and told."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data import import_records
from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store
from glmstudio.errors import StudioError

ROOT = Path(__file__).resolve().parents[2]
# Brings rows in until it is killed, or until a line comes in.
IMPORTING = """
import sys, threading
from glmstudio.data.example import Example
from glmstudio.data.store import Store
enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
def rows():
    for number in range(10**9):
        if enough.is_set():
            return
        if number == 2500:
            print("under way", flush=True)
        yield Example("i", f"row {number}", "t" * 500, dataset="d")
Store(sys.argv[1]).import_rows(rows(), dataset="d", file="many.jsonl", person="li")
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rows.sqlite'}"


@pytest.fixture
def store(url: str):
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture
def importing(url: str, store: Store):
    """Another process that has brought in its first portions."""
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTING, url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "under way\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rows(count: int, dataset: str = "d"):
    return (Example("i", str(number), "t", dataset=dataset) for number in range(count))


def state_of(store: Store) -> list[tuple[str, int]]:
    return [(record.state, record.rows) for record in store.imports.all()]


def test_others_save_while_another_process_imports_and_see_its_rows_when_it_is_complete(store, importing):
    waits = []
    for number in range(30):
        before = store.imports.all()[0].rows
        store.save(Example("i", f"mine {number}", "t", dataset="mine"))
        waits.append((store.imports.all()[0].rows - before) // import_records.PORTION_ROWS)
    # Portions that came in before a save did, of the hundreds of the 30 s after which it would give up.
    assert sorted(waits)[15] <= 10
    assert max(waits) <= 100
    assert [summary.name for summary in store.datasets()] == ["mine"]
    assert store.page(Query(search="row")).total == 0
    assert list(store.iterate(Query(dataset="d"))) == []
    assert store.count(Query()) == {("train", "done"): 30}
    assert store.imports.all()[0].state == "running"
    with pytest.raises(StudioError, match="example-gone"):
        store.get(1)
    importing.stdin.write("\n")
    importing.stdin.flush()
    assert importing.wait(120) == 0
    ((state, count),) = state_of(store)
    assert state == "done"
    assert store.page(Query(dataset="d")).total == count >= 2500
    assert store.page(Query(dataset="mine")).total == 30


def test_a_killed_import_is_removed_at_the_next_start_and_told_once(url, store, importing):
    store.save(Example("i", "mine", "t", dataset="mine"))
    assert store.imports.remove_broken() == []
    importing.kill()
    importing.wait()
    again = Store(url)
    (broken,) = again.imports.remove_broken()
    assert (broken.state, broken.file, broken.person, broken.rows >= 2000) == ("broken", "many.jsonl", "li", True)
    assert again.imports.remove_broken() == []
    with again._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM examples").scalar_one() == 1
    again.imports.forget(broken.id)
    assert state_of(again) == [("told", broken.rows)]
    again.close()


def test_the_same_file_brought_in_again_needs_no_telling(store, importing):
    importing.kill()
    importing.wait()
    store.imports.remove_broken()
    store.import_rows(rows(3), dataset="d", file="many.jsonl")
    assert [state for state, _ in state_of(store)] == ["done", "told"]


def test_an_import_comes_in_whole_or_not_at_all(store: Store) -> None:
    def breaks():
        yield from rows(2500)
        assert store.page(Query()).total == 0
        yield Example("i", "\ud800")

    with pytest.raises(StudioError, match="text-unstorable"):
        store.import_rows(breaks(), dataset="d", file="f")
    assert state_of(store) == []
    with store._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM examples").scalar_one() == 0
    assert store.import_rows(rows(2500), dataset="d", file="f").rows == 2500
    assert [row.input for row in store.iterate(Query())] == [str(number) for number in range(2500)]


def test_an_import_is_taken_back_but_for_what_somebody_changed(store: Store) -> None:
    kept = store.save(Example("i", "before", "t", dataset="d"))
    done = store.import_rows(rows(30), dataset="d", file="f")
    first = store.page(Query(dataset="d", search="17")).rows[0]
    changed = store.save(replace(first, target="changed"))
    record, stay = store.imports.undo(done.id)
    assert (record.state, record.rows, stay) == ("undone", 30, 1)
    assert [row.id for row in store.page(Query()).rows] == [changed.id, kept.id]
    assert store.restore([changed.id + 1]) == 0
    with pytest.raises(StudioError, match="example-gone"):
        store.get(changed.id + 1)
    with pytest.raises(StudioError, match="import-gone"):
        store.imports.undo(done.id)


def test_an_import_that_somebody_else_took_for_dead_does_not_go_on(store: Store, monkeypatch) -> None:
    def taken_for_dead():
        yield from rows(1500)
        monkeypatch.setattr(import_records, "is_there", lambda process: False)
        store.imports.remove_broken()
        yield from rows(1500)

    with pytest.raises(StudioError, match="import-gone"):
        store.import_rows(taken_for_dead(), dataset="d", file="f")
    assert store.page(Query()).total == 0


def test_two_imports_at_once_both_come_in(store: Store) -> None:
    threads = [
        threading.Thread(target=lambda name=name: store.import_rows(rows(3000, name), dataset=name, file=name))
        for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(summary.name, summary.total) for summary in store.datasets()] == [("a", 3000), ("b", 3000)]


def test_portions_are_bounded_by_rows_and_by_characters() -> None:
    row = {"instruction": "", "input": "", "target": "t"}
    assert [len(portion) for portion in import_records.portions([row] * 2500)] == [1000, 1000, 500]
    long = row | {"input": "长" * 600_000}
    assert [len(portion) for portion in import_records.portions([long] * 5)] == [2, 2, 1]
