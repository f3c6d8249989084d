"""What is written aside and what is removed beside it: only what this program made, known by a mark inside."""

import json
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.exporting.destinations import MARK, aside, free_name, workplace
from glmstudio.processes import this_process


def put(folder: Path, mark: object = None) -> Path:
    folder.mkdir()
    (folder / "precious").write_text("mine")
    if mark is not None:
        (folder / MARK).write_text(json.dumps(mark))
    return folder


@pytest.mark.parametrize("way", [aside, workplace])
def test_only_what_a_killed_writer_of_the_same_destination_left_is_removed(tmp_path, way):
    dead = this_process() | {"started": 1.0}
    left = put(tmp_path / ".out.12345678.writing", dead)
    kept = [
        put(tmp_path / ".out.writing"),
        put(tmp_path / ".out.87654321.writing"),
        put(tmp_path / ".out.11111111.writing", this_process()),
        put(tmp_path / ".out.22222222.writing", "no process"),
        put(tmp_path / ".other.12345678.writing", dead),
        put(tmp_path / ".out.merged"),
    ]
    with way(tmp_path / "out") as folder:
        assert not left.exists()
        (folder / "file").write_text("new")
    assert all((path / "precious").read_text() == "mine" for path in kept)
    made = {tmp_path / "out"} if way is aside else set()
    assert set(tmp_path.iterdir()) == {*kept, *made}
    assert all([path.name for path in place.iterdir()] == ["file"] for place in made)


def test_what_fails_leaves_nothing_and_two_at_once_do_not_meet(tmp_path):
    def fails() -> None:
        with aside(tmp_path / "out") as first, aside(tmp_path / "out") as second:
            assert first != second
            (second / "file").write_text("second")
            raise StudioError("export-stopped", folder="out")

    with pytest.raises(StudioError, match="export-stopped"):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_free_name_is_no_name_that_is_there(tmp_path):
    for expected in ("a.x", "a-2.x", "a-3.x"):
        path = free_name(tmp_path, "a", ".x")
        assert path.name == expected
        path.touch()
