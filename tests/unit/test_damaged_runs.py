"""A damaged `run.json` is named, in both languages, and everything else goes on."""

import json
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.studio import Studio
from glmstudio.training.runs import RunFolder
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.train_status import runs_html, status_html
from glmstudio.workspace import Workspace
from tests.damages import unreadable
from tests.unit.test_runs import create

# A whole text, or values that differ from those of a run.
DAMAGES = {
    "no JSON": "{", "empty": "", "a list": "[1]", "a number": "7", "rubbish": "\udcff\x00", "deep": "[" * 100_000,
    "no base": {"base": None}, "a base of another kind": {"base": {"source": 5}}, "no settings": {"settings": []},
    "a text where a time is": {"created_at": "yesterday"}, "a time beyond calendars": {"created_at": 1e300},
    "no number for a time": {"started_at": float("nan"), "finished_at": 5.0}, "steps in words": {"step": "three"},
    "a status of another version": {"status": "melted"}, "half a failure": {"status": "failed", "error": {}},
    "a failure in words": {"error": "out of memory"}, "a loss in words": {"best_eval_loss": "low"},
}  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path):
    studio = Studio(Workspace(tmp_path))
    for number in (1, 2):
        create(studio._workspace.run_folder(f"run-{number:04d}"))
    yield studio
    studio.close()


def damage(path: Path, how: str | dict) -> None:
    if isinstance(how, dict):
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | how), encoding="utf-8")
    else:
        path.write_text(how, encoding="utf-8", errors="surrogateescape")


@pytest.mark.parametrize("name", [*DAMAGES, "a folder", "not readable"])
def test_a_damaged_run_is_named_and_the_others_go_on(studio, name, monkeypatch):
    path = studio._workspace.run_folder("run-0002") / "run.json"
    if name == "a folder":
        path.unlink()
        path.mkdir()
    elif name == "not readable":
        unreadable(monkeypatch, path)
    else:
        damage(path, DAMAGES[name])
    studio.start(load_base=False)
    assert [run.id for run in studio.runs()] == ["run-0001"]
    (error,) = studio.damaged()
    assert (error.code, error.params["file"]) == ("run-unreadable", str(path))
    assert error.params["reason"]
    for lang in ("en", "zh"):
        assert "run-0002/run.json" in problem_html(error, lang)
    with pytest.raises(StudioError, match="run-unreadable"):
        studio.run("run-0002")


def test_what_is_read_can_be_shown(studio):
    """Values that are odd, but of their kind."""
    odd = {"step": -5, "total": 10**30, "best_eval_loss": float("nan"), "started_at": 5, "finished_at": 1.5}
    odd |= {"status": "failed", "error": {"code": "of-another-version", "params": {"x": [1]}}, "dataset": "<b>"}
    damage(studio._workspace.run_folder("run-0002") / "run.json", odd)
    assert studio.damaged() == []
    for lang in ("en", "zh"):
        assert "&lt;b&gt;" in runs_html(studio.runs(), "", (), lang)
        assert all(status_html(run, None, {}, lang) for run in studio.runs())


def test_a_run_that_is_mended_or_goes_is_seen_at_the_next_look(studio):
    folder = RunFolder(studio._workspace.run_folder("run-0002"))
    whole = (folder.path / "run.json").read_text(encoding="utf-8")
    damage(folder.path / "run.json", "{")
    assert len(studio.damaged()) == 1
    damage(folder.path / "run.json", whole)
    assert (len(studio.runs()), studio.damaged()) == (2, [])
    folder.update(step=3)
    assert {run.id: run.step for run in studio.runs()}["run-0002"] == 3
    (folder.path / "run.json").unlink()
    assert (len(studio.runs()), studio.damaged()) == (1, [])


def test_a_run_is_called_as_its_folder_is(studio):
    folder = studio._workspace.run_folder("run-0002")
    folder.rename(folder.with_name("a copy"))
    assert {(run.id, run.number) for run in studio.runs()} == {("run-0001", 1), ("a copy", 0)}


def test_a_switch_of_older_versions_still_reads(studio):
    path = studio._workspace.run_folder("run-0002") / "run.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["checkpointing"]
    values["settings"]["gradient_checkpointing"] = True
    values["of_a_later_version"] = 5
    path.write_text(json.dumps(values), encoding="utf-8")
    run = studio.run("run-0002")
    assert (run.settings.gradient_checkpointing, run.checkpointing) == ("on", True)


def test_an_order_that_cannot_be_read_is_none(studio):
    studio._workspace.queue.mkdir()
    studio.start(load_base=False)
    assert studio.look(fresh=True).queue.waiting == ()
