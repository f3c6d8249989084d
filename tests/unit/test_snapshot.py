"""Frozen rows: the same rows, the same folder; other rows, another; nothing half-written; nothing changed unnoticed."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.data.reading.reader import read
from glmstudio.errors import StudioError

TRAIN = [
    Example("指令", "一\n二\u2028三", "```json\n[]\n```", id=7),
    Example("", "问题：……", "答", tags=("raw-context",)),
]
DEV = [Example("i", "x", "t", split="dev")]


def texts(rows: list[Example]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(row.instruction, row.input, row.target, row.tags) for row in rows]


def test_freezing_twice_gives_one_folder(tmp_path: Path) -> None:
    first = snapshot.freeze(TRAIN, DEV, tmp_path)
    written = (first.folder / "snapshot.json").stat().st_mtime_ns
    renumbered = [replace(row, id=99, annotator="li", updated_at="later") for row in TRAIN]
    second = snapshot.freeze(iter(renumbered), iter(DEV), tmp_path)
    assert second.folder == first.folder == tmp_path / first.id
    assert [path.name for path in tmp_path.iterdir()] == [first.id]
    assert (first.folder / "snapshot.json").stat().st_mtime_ns == written
    assert second.train == renumbered


@pytest.mark.parametrize(
    ("train", "dev"),
    [
        ([*TRAIN, *DEV], []),
        (TRAIN[::-1], DEV),
        ([replace(TRAIN[0], target="x"), TRAIN[1]], DEV),
        ([TRAIN[0], replace(TRAIN[1], tags=())], DEV),
    ],
)
def test_other_rows_get_another_id(tmp_path: Path, train: list[Example], dev: list[Example]) -> None:
    assert snapshot.freeze(train, dev, tmp_path).id != snapshot.freeze(TRAIN, DEV, tmp_path).id


def test_a_loaded_snapshot_holds_the_frozen_rows(tmp_path: Path) -> None:
    frozen = snapshot.freeze(TRAIN, DEV, tmp_path)
    loaded = snapshot.load(frozen.folder)
    assert loaded.id == frozen.id
    assert texts(loaded.train) == texts(TRAIN)
    assert texts(loaded.dev) == texts(DEV)
    about = json.loads((frozen.folder / "snapshot.json").read_text(encoding="utf-8"))
    assert (about["train"], about["dev"]) == (2, 1)


def test_the_frozen_files_can_be_imported(tmp_path: Path) -> None:
    reading = read(snapshot.freeze(TRAIN, DEV, tmp_path).folder / "train.jsonl", dataset="d")
    assert texts(list(reading)) == texts(TRAIN)
    assert not reading.told.ignored


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    folder = snapshot.freeze(TRAIN, DEV, tmp_path).folder
    path = folder / "dev.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"t"', b'"u"'))
    with pytest.raises(StudioError) as caught:
        snapshot.load(folder)
    assert caught.value.code == "snapshot-changed"
    path.unlink()
    with pytest.raises(StudioError) as caught:
        snapshot.load(folder)
    assert (caught.value.code, caught.value.params["file"]) == ("snapshot-missing", "dev.jsonl")


def test_two_threads_freezing_the_same_rows_leave_one_whole_folder(tmp_path: Path) -> None:
    rows = [Example("i", str(number)) for number in range(2000)]
    barrier, folders = threading.Barrier(4), []

    def freeze() -> None:
        barrier.wait()
        folders.append(snapshot.freeze(rows, [], tmp_path).folder)

    threads = [threading.Thread(target=freeze) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert list(tmp_path.iterdir()) == [folders[0]]
    assert len(snapshot.load(folders[0]).train) == 2000


def test_a_write_that_breaks_leaves_no_snapshot_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(snapshot.os, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        snapshot.freeze(TRAIN, DEV, tmp_path)
    assert not list(tmp_path.iterdir())


def test_frozen_rows_are_found_where_they_lie(tmp_path: Path) -> None:
    frozen = snapshot.freeze(TRAIN, DEV, tmp_path / "second")
    found = snapshot.find(frozen.id, tmp_path / "first", tmp_path / "second")
    assert found.folder == frozen.folder
    assert snapshot.identity(found.train, found.dev) == frozen.id != snapshot.identity(found.train, [])
    with pytest.raises(StudioError, match="snapshot-missing") as told:
        snapshot.find("none", tmp_path / "first", tmp_path / "second")
    assert told.value.params["folder"] == str(tmp_path / "first" / "none")
