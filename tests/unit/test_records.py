"""What was read of files is read again only where they have changed, and always where they have."""

import os
from pathlib import Path

import pytest

from glmstudio.data import records
from glmstudio.data.records import KeptReads, Records, folders
from glmstudio.errors import StudioError
from glmstudio.training.run_list import RunList
from glmstudio.training.runs import RunFolder
from tests.unit.test_runs import adapter, create

LONG_AGO = 1_700_000_000


def old(*places: Path) -> None:
    """As if everything in these places had been written long ago."""
    for place in places:
        for path in (place, *place.rglob("*")):
            os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def kept(tmp_path: Path):
    file, reads = tmp_path / "a.json", []

    def read(path: Path) -> str:
        text = path.read_text()
        reads.append(text)
        if text == "bad":
            raise StudioError("run-unreadable", file=str(path))
        return text

    file.write_text("first")
    return file, reads, Records(read)


def test_a_file_is_read_again_only_when_it_has_changed(kept) -> None:
    file, reads, files = kept
    old(file)
    for _ in range(3):
        assert files.look([str(file)]) == (["first"], [])
    assert reads == ["first"]
    file.write_text("bad")
    old(file)
    for _ in range(2):
        found, (error,) = files.look([str(file)])
        assert (found, error.code) == ([], "run-unreadable")
    assert reads == ["first", "bad"]
    file.unlink()
    assert files.look([str(file)]) == ([], [])
    file.write_text("bad")
    assert len(files.look([str(file)])[1]) == 1


def test_two_changes_of_one_moment_are_both_seen(kept) -> None:
    """A file system tells times apart that are milliseconds apart, some only seconds."""
    file, reads, files = kept
    files.look([str(file)])
    moment = file.stat()
    for text in ("third", "ninth"):
        file.write_text(text)
        os.utime(file, ns=(moment.st_atime_ns, moment.st_mtime_ns))
        assert files.look([str(file)]) == ([text], [])
    assert reads == ["first", "third", "ninth"]


def test_what_is_looked_for_no_more_is_forgotten(tmp_path: Path) -> None:
    kept: KeptReads[int] = KeptReads()
    old(tmp_path)
    reads = iter(range(9))
    assert [kept.get("a", lambda: (next(reads), [str(tmp_path)])) for _ in range(2)] == [0, 0]
    kept.keep_only(["b"])
    assert kept.get("a", lambda: (next(reads), [str(tmp_path)])) == 1


def test_folders_are_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    assert folders(tmp_path) == [str(tmp_path / "run")]
    assert folders(tmp_path / "none") == folders(tmp_path / "file") == []


def test_checkpoints_are_listed_again_only_where_something_was_moved(tmp_path: Path, monkeypatch) -> None:
    listed, checkpoints = [], RunFolder.checkpoints

    def counting(folder: RunFolder) -> list[str]:
        listed.append(folder.path.name)
        return checkpoints(folder)

    monkeypatch.setattr(RunFolder, "checkpoints", counting)
    runs, folder = RunList(tmp_path), RunFolder(tmp_path / "run-0001")
    create(folder.path)
    assert runs.checkpoints("run-0001") == runs.checkpoints("none") == []
    for name in ("best", "checkpoint-9"):
        adapter(folder.path / name)
    old(tmp_path)
    before = len(listed)
    for _ in range(3):
        assert runs.checkpoints("run-0001") == ["best", "checkpoint-9"]
    assert len(listed) == before + 1
    # By hand, in the folder of a checkpoint.
    for path in (folder.path / "best").iterdir():
        path.unlink()
    assert runs.checkpoints("run-0001") == ["checkpoint-9"]
    adapter(folder.path / "last")
    assert runs.checkpoints("run-0001") == ["last", "checkpoint-9"]
    folder.keep_newest(0)
    assert runs.checkpoints("run-0001") == ["last"]
    # While a new one takes its place the former one lies aside.
    old(tmp_path)
    assert runs.checkpoints("run-0001") == ["last"]
    folder.aside.mkdir(exist_ok=True)
    os.replace(folder.path / "last", folder.aside / "last-old")
    assert runs.checkpoints("run-0001") == ["last"]


def test_a_look_that_finds_nothing_new_opens_nothing(tmp_path: Path, monkeypatch) -> None:
    for number in range(3):
        create(tmp_path / f"run-{number:04d}")
    old(tmp_path)
    runs, opened, read_bytes = RunList(tmp_path), [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    first, _ = runs.look()
    assert len(opened) == 3
    assert runs.look()[0] == first
    assert len(opened) == 3
    assert records.SETTLED_SECONDS >= 2
