"""Trackers: what TensorBoard's files say is what `metrics.jsonl` says, and one that is not installed is named."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glmstudio.errors import StudioError
from glmstudio.settings import TRACKERS, LoraSettings
from glmstudio.training.reporting import missing
from glmstudio.training.runs import RunFolder
from glmstudio.ui.language import error_text
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, FAST, TRAIN, assert_same, checked, records, resume_in, run_in

TENSORBOARD = dataclasses.replace(FAST, report_to="tensorboard", save_steps=4, eval_steps=5)


def drawn(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(point.step, pytest.approx(point.value, rel=1e-6)) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def recorded(folder: Path, kind: str, name: str) -> list[tuple[int, float]]:
    return [(record.step, record.values[name]) for record in records(folder, kind)]


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "run-0001"
    run_in(folder, TENSORBOARD)
    return folder


def test_tensorboard_is_told_what_the_record_says(told: Path, tmp_path: Path) -> None:
    curves = drawn(told)
    for name in ("loss", "learning_rate", "grad_norm"):
        assert recorded(told, "train", name) == curves[f"train/{name}"], name
    assert len(curves["train/loss"]) == 12
    assert recorded(told, "eval", "loss") == curves["eval/loss"]
    run_in(tmp_path / "untold", dataclasses.replace(TENSORBOARD, report_to="none"))
    assert_same(told, tmp_path / "untold")
    assert not (tmp_path / "untold" / "tensorboard").exists()


def test_a_run_that_goes_on_draws_each_step_once(told: Path, tmp_path: Path) -> None:
    run_in(tmp_path / "run", TENSORBOARD, should_stop=lambda: len(records(tmp_path / "run", "train")) >= 6)
    stopped = RunFolder(tmp_path / "run").read().step
    assert 6 <= stopped < 12
    # What lies behind the newest checkpoint was not kept, as when the machine was switched off.
    for number in RunFolder(tmp_path / "run").numbered():
        if number != 4:
            (tmp_path / "run" / f"checkpoint-{number}").rename(tmp_path / f"gone-{number}")
    resume_in(tmp_path / "run")
    assert drawn(tmp_path / "run")["train/loss"] == recorded(told, "train", "loss")


@pytest.mark.parametrize("tracker", TRACKERS[1:])
def test_a_tracker_that_is_not_installed_is_named_with_its_command(tracker, monkeypatch, tmp_path: Path) -> None:
    hide(monkeypatch, tracker)
    settings = dataclasses.replace(FAST, report_to=tracker)
    found = checked(tiny_base(), TRAIN, DEV, LoraSettings(), settings)
    assert [finding.code for finding in found if finding.severity == "error"] == ["report-missing"]
    assert f"pip install {tracker}" in error_text(missing(tracker), "en")
    with pytest.raises(StudioError, match="report-missing"):
        run_in(tmp_path / "run", settings)
    assert RunFolder(tmp_path / "run").read().status == "failed"


def test_no_tracker_needs_no_package(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert missing("none") is None
