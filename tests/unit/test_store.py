"""The store: saving, history, deleting, paging and searching, each against a real SQLite file."""

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from glmstudio.data import database, migrations
from glmstudio.data.example import Example
from glmstudio.data.row_reader import DatasetSummary, Page, Query
from glmstudio.data.row_starts import CHARACTERS, StartsPage, TextStart
from glmstudio.data.store import Store
from glmstudio.errors import StudioError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rows.sqlite'}"


@pytest.fixture
def store(url: str):
    opened = Store(url)
    yield opened
    opened.close()


def code_of(call) -> StudioError:
    with pytest.raises(StudioError) as caught:
        call()
    return caught.value


def test_a_saved_row_comes_back_whole(store: Store) -> None:
    row = Example("指令", "输入\r\n", "答\t案", "d", "dev", "draft", "feedback", "li", ("corrected", "难"))
    saved = store.save(row)
    assert saved.id == 1
    assert saved.revision == 1
    assert saved.created_at == saved.updated_at != ""
    assert replace(saved, id=None, revision=0, created_at="", updated_at="") == row
    assert store.get(1) == saved


def test_a_stale_revision_is_refused_with_the_current_row(store: Store) -> None:
    mine = store.save(Example("a", "b", "c"))
    theirs = store.save(replace(mine, target="theirs"), expected_revision=1)
    error = code_of(lambda: store.save(replace(mine, target="mine"), expected_revision=1))
    assert (error.code, error.params["current"]) == ("stale-revision", theirs)
    assert store.get(mine.id).target == "theirs"
    assert store.save(replace(mine, target="mine")).revision == 3


def test_saving_without_a_change_makes_no_revision(store: Store) -> None:
    row = store.save(Example("a", "b", "c", annotator="li"))
    assert store.save(replace(row, annotator="wang"), expected_revision=1) == row
    assert store.save(replace(row, status="draft"), expected_revision=1).revision == 2


def test_the_row_after_one_is_the_next_of_the_list_that_was_asked_for(store: Store) -> None:
    store.add_many(Example("i", f"{number}", "t", split="dev" if number % 2 else "train") for number in range(1, 7))
    dev = Query(split="dev")
    assert [row.id for row in store.page(dev).rows] == [5, 3, 1]
    assert store.after(dev, 5) == (3, 1)
    assert store.after(dev, 4) == (3, 1)
    assert store.after(dev, 1) is None
    assert store.after(Query(), 6) == (5, 1)


def test_the_bin_holds_deleted_rows_and_nothing_else(store: Store) -> None:
    store.add_many([Example("i", "kept", "t"), Example("i", "gone", "t")])
    store.delete([2])
    assert [row.input for row in store.page(Query(deleted=True)).rows] == ["gone"]
    assert [row.input for row in store.page(Query()).rows] == ["kept"]
    store.restore([2])
    assert store.page(Query(deleted=True)).total == 0


def test_two_colleagues_saving_at_once_cannot_both_win(store: Store) -> None:
    row = store.save(Example("a", "b", "c"))
    barrier, outcomes = threading.Barrier(8), []

    def save(number: int) -> None:
        barrier.wait()
        try:
            store.save(replace(row, target=str(number)), expected_revision=1)
            outcomes.append("saved")
        except StudioError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["saved"] + ["stale-revision"] * 7
    assert store.get(row.id).revision == 2


def test_undo_walks_back_and_a_new_save_starts_again(store: Store) -> None:
    row = store.save(Example("i", "x", "one"))
    store.save(replace(row, target="two"))
    store.save(replace(row, target="three", status="discarded"))
    back = store.undo_save(row.id)
    assert (back.target, back.status, back.revision) == ("two", "done", 4)
    store.save(replace(back, target="four"))
    assert [store.undo_save(row.id).target for _ in range(2)] == ["two", "one"]
    assert code_of(lambda: store.undo_save(row.id)).code == "nothing-to-undo"
    assert store.get(row.id).target == "one"


def test_undo_of_the_first_save_takes_the_row_away_until_restored(store: Store) -> None:
    row = store.save(Example("i", "x", "one"))
    assert store.undo_save(row.id) is None
    assert code_of(lambda: store.get(row.id)).code == "example-gone"
    assert store.restore([row.id]) == 1
    assert store.get(row.id) == row


def test_undo_does_not_take_back_what_a_colleague_saved_since(store: Store) -> None:
    mine = store.save(Example("i", "x", "one"))
    store.save(replace(mine, target="theirs"))
    assert code_of(lambda: store.undo_save(mine.id, expected_revision=1)).code == "stale-revision"


def test_deleted_rows_are_hidden_and_restored_as_they_were(store: Store) -> None:
    rows = [store.save(Example("i", str(number), "t")) for number in range(3)]
    assert store.delete([1, 3, 99]) == 2
    assert store.delete([1]) == 0
    assert store.page(Query()).total == 1
    assert [row.id for row in store.iterate(Query())] == [2]
    assert code_of(lambda: store.save(rows[0])).code == "example-gone"
    assert store.restore([1, 2, 3]) == 2
    assert store.page(Query()).rows == rows[::-1]


def test_ids_are_never_given_twice(store: Store) -> None:
    store.delete([store.save(Example("i")).id])
    assert store.save(Example("i")).id == 2


def test_add_many_is_whole_or_not_at_all(store: Store) -> None:
    def breaks():
        yield from (Example("i", str(number)) for number in range(2500))
        yield Example("i", "\ud800")

    assert code_of(lambda: store.add_many(breaks())).params == {"field": "input"}
    assert store.page(Query()).total == 0
    assert store.add_many(Example("i", str(number)) for number in range(2500)) == 2500
    assert [row.input for row in store.iterate(Query())] == [str(number) for number in range(2500)]


def test_pages_are_newest_first_with_the_total(store: Store) -> None:
    store.add_many(Example("i", str(number)) for number in range(45))
    page = store.page(Query(), offset=40, limit=20)
    assert (page.total, [row.input for row in page.rows]) == (45, ["4", "3", "2", "1", "0"])
    assert store.page(Query(), offset=0, limit=2).rows[0].input == "44"
    assert store.page(Query(search="4"), offset=40, limit=20) == Page([], 9)
    assert store.page(Query(search="x"), offset=40, limit=20) == Page([], 0)


def test_every_change_of_a_datasets_rows_is_counted_and_nothing_else(store: Store, url: str) -> None:
    other = Store(url)
    row = store.save(Example("i", "x", "one", dataset="a"))
    calls = {
        "saved": (lambda: other.save(Example("i", "y", dataset="a")), {"a"}),
        "changed": (lambda: other.save(replace(row, target="two")), {"a"}),
        "moved": (lambda: store.save(replace(row, dataset="b")), {"a", "b"}),
        "the same again": (lambda: store.save(replace(row, dataset="b", annotator="li")), set()),
        "taken back": (lambda: store.undo_save(1), {"a", "b"}),
        "deleted": (lambda: store.delete([1, 2]), {"a"}),
        "deleted again": (lambda: store.delete([1, 2]), set()),
        "restored": (lambda: store.restore([1]), {"a"}),
        "added": (lambda: store.add_many([Example("i", "z", dataset="c")]), {"c"}),
        "imported": (lambda: other.import_rows([Example("i", dataset="d")], dataset="d", file="f"), {"d"}),
        "import taken back": (lambda: other.imports.undo(1), {"d"}),
        "a failed import": (lambda: code_of(lambda: store.import_rows(failing(), dataset="d", file="f")), set()),
        "named anew": (lambda: store.rename_dataset("c", "e"), {"c", "e"}),
        "read": (lambda: (store.datasets(), store.page(Query()), list(store.iterate(Query()))), set()),
    }
    for what, (call, changed) in calls.items():
        before = store.changes.all()
        call()
        after = store.changes.all()
        assert {name for name in after if after[name] != before.get(name, 0)} == changed, what
        fresh = Store(url)
        assert store.datasets() == fresh.datasets(), what
        fresh.close()
    other.close()


def failing():
    yield Example("i", dataset="d")
    raise StudioError("file-unreadable")


def test_filters_and_summaries_agree(store: Store) -> None:
    done, dev = Example("i", "1", dataset="b"), Example("i", "2", dataset="b", split="dev", source="import")
    draft, discarded = replace(done, status="draft"), replace(dev, status="discarded")
    store.add_many([done, done, dev, draft, discarded, Example("i", dataset="a")])
    assert store.datasets() == [DatasetSummary("a", 1, 1, 0, 0), DatasetSummary("b", 5, 2, 1, 1)]
    assert store.page(Query(dataset="b")).total == 5
    assert store.page(Query(dataset="b", split="dev")).total == 2
    assert store.page(Query(source="import", status="done")).total == 1
    assert len(list(store.iterate(Query(dataset="b")))) == 4
    assert [row.status for row in store.iterate(Query(status="discarded"))] == ["discarded"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("星", [2, 1]),
        ("九玄珠", [1]),
        ("PyThOn", [2]),
        ("100%", [3]),
        ("a_b", [3]),
        ("  星驰 ", [2]),
        ("单独", [4]),
        ("常见指令", []),
        ("不在", []),
        ("\\", [3]),
        ("'", [3]),
    ],
)
def test_search_finds_any_part_and_nothing_else(store: Store, search: str, found: list[int]) -> None:
    store.add_many(
        [
            Example("常见指令", "九玄珠是一部小说", '["星"]'),
            Example("常见指令", "周星驰 python", "axb"),
            Example("常见指令", "100% a_b \\ '", "1000"),
            Example("单独的指令，没有输入", "", "答"),
        ]
    )
    page = store.page(Query(search=search))
    assert ([row.id for row in page.rows], page.total) == (found, len(found))


def test_a_search_is_paged_and_bounded(store: Store) -> None:
    store.add_many(Example("i", f"行{number}") for number in range(30))
    page = store.page(Query(search="行"), offset=20, limit=5)
    assert (page.total, [row.id for row in page.rows]) == (30, [10, 9, 8, 7, 6])
    assert code_of(lambda: store.page(Query(search="长" * 1001))).params == {"length": 1001, "limit": 1000}


def test_a_list_reads_how_texts_begin_and_what_a_search_finds_behind(store: Store) -> None:
    book = "开" * CHARACTERS
    store.add_many(
        [
            Example("i", "short", "t", tags=("x",)),
            Example(book + "instead", "", "Needle"),
            Example("needle", "in" + book + "a Needle here" + book, book),
            Example("i", book[:-3] + "needle at the edge", "t", dataset="d", split="dev", status="draft"),
        ]
    )
    page = store.starts(Query(), limit=3)
    assert [row.id for row in page.rows] == [row.id for row in store.page(Query(), limit=3).rows] == [4, 3, 2]
    assert page.total == 4
    edge, far, alone = page.rows
    assert (edge.dataset, edge.split, edge.status, edge.source) == ("d", "dev", "draft", "manual")
    assert (far.input, far.target) == (TextStart("in" + book[:-2], more=True), TextStart(book))
    assert all(not text.match for row in page.rows for text in (row.instruction, row.input, row.target))
    (short,) = store.starts(Query(), offset=3).rows
    assert (short.instruction, short.input, short.target) == (TextStart("i"), TextStart("short"), TextStart("t"))
    assert store.starts(Query(), offset=40) == StartsPage([], 4)

    edge, far, alone = store.starts(Query(search=" needle ")).rows
    assert edge.input.match.endswith("开needle at the edge")
    assert "a Needle here开" in far.input.match
    assert len(far.input.match) <= 40 + len("needle") + 160
    # It is not what was searched where there is an input, and near enough to be shown without.
    assert (far.instruction.match, alone.target.match) == ("", "")
    (alone,) = store.starts(Query(search="instead")).rows
    assert alone.instruction.match.endswith("开instead")


def test_rows_history_and_schema_survive_a_restart(store: Store, url: str) -> None:
    row = store.save(Example("i", "x", "one"))
    store.save(replace(row, target="two"))
    again = Store(url)
    assert again.undo_save(row.id).target == "one"
    again.close()


def test_an_old_database_runs_only_the_steps_it_has_not_seen(store: Store, url: str, monkeypatch) -> None:
    store.save(Example("i", "kept"))

    def add_column(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE examples ADD COLUMN note VARCHAR DEFAULT 'new'"))

    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, add_column))
    for _ in range(2):
        newer = Store(url)
        assert newer.get(1).input == "kept"
        newer.close()
    monkeypatch.undo()
    error = code_of(lambda: Store(url))
    assert (error.code, error.params) == ("database-newer", {"found": 7, "known": 6})


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    path.write_text("this is a letter, not a database, and long enough to be read as a header" * 20)
    error = code_of(lambda: Store(f"sqlite:///{path}"))
    assert error.code == "database-failed"
    assert str(path) in error.params["database"]


def test_the_search_is_case_insensitive_on_postgresql_too(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(store._database, "is_sqlite", False)
    condition = sa.and_(*store._conditions(Query(dataset="d", search="50%")))
    text = str(condition.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    assert "lower(examples.input) LIKE '%%' || lower('50/%%') || '%%'" in text or "ILIKE" in text


def test_an_old_database_keeps_everything_and_a_copy_of_itself(url: str, tmp_path: Path, monkeypatch) -> None:
    engine = sa.create_engine(url)
    with monkeypatch.context() as of_old, engine.begin() as connection:
        of_old.setattr(migrations, "STEPS", migrations.STEPS[:3])
        migrations.migrate(connection)
        for table in ("examples", "revisions"):
            names = [column["name"] for column in sa.inspect(connection).get_columns(table)]
            numbers = {"id": 7, "example_id": 7, "revision": 1 if table == "revisions" else 2, "undone": 0}
            words = {"tags": "[]", "deleted_at": "", "target": table, "dataset": "../old", "status": "done"}
            given = {name: value for name, value in (numbers | words).items() if name in names}
            row = dict.fromkeys(names, "x") | given
            connection.execute(sa.table(table, *map(sa.column, names)).insert().values(row))
    engine.dispose()
    for _ in range(2):
        opened = Store(url)
        assert (opened.get(7).target, opened.get(7).dataset) == ("examples", "../old")
        opened.close()
    (copy,) = tmp_path.glob("*.schema-3.sqlite")
    with sqlite3.connect(copy) as old:
        assert old.execute("SELECT target FROM examples").fetchall() == [("examples",)]
        assert old.execute("SELECT version FROM schema_version").fetchall() == [(3,)]
    again = Store(url)
    assert again.undo_save(7).target == "revisions"
    assert again.import_rows([Example("i", dataset="../old")], dataset="../old", file="f").rows == 1
    again.close()


def test_a_database_that_cannot_be_copied_stays_as_it_is(url: str, tmp_path: Path, monkeypatch) -> None:
    engine = sa.create_engine(url)
    with monkeypatch.context() as of_old, engine.begin() as connection:
        of_old.setattr(migrations, "STEPS", migrations.STEPS[:3])
        migrations.migrate(connection)
    engine.dispose()

    def full(path: Path) -> sqlite3.Connection:
        if "schema-3" in path.name:
            path.touch()
            raise sqlite3.OperationalError("database or disk is full")
        return sqlite3.connect(path)

    with monkeypatch.context() as of_a_full_disk:
        of_a_full_disk.setattr(database, "sqlite3", SimpleNamespace(connect=full, Error=sqlite3.Error))
        error = code_of(lambda: Store(url))
    assert (error.code, error.params["reason"]) == ("database-not-copied", "database or disk is full")
    assert list(tmp_path.glob("*schema*")) == []
    with sqlite3.connect(tmp_path / "rows.sqlite") as old:
        assert old.execute("SELECT version FROM schema_version").fetchall() == [(3,)]


def test_a_dataset_gets_another_name_with_its_history(store: Store) -> None:
    row = store.save(Example("i", "x", "one", dataset="../old"))
    store.save(replace(row, target="two"))
    store.save(Example("i", dataset="taken"))
    assert store.rename_dataset("../old", "new") == 1
    assert store.undo_save(row.id).dataset == "new"
    assert code_of(lambda: store.rename_dataset("new", "taken")).code == "dataset-exists"
    assert code_of(lambda: store.rename_dataset("../old", "b")).params["names"] == "new, taken"
