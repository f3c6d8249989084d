"""A run that pauses: others have the model, nothing is lost, and it ends with the bytes of an undisturbed one."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.resident import Resident
from glmstudio.settings import GenerationSettings
from glmstudio.training import pace
from glmstudio.training.pace import Pace
from glmstudio.training.pause_wish import PauseWish
from glmstudio.training.run_list import mark_interrupted
from glmstudio.training.runs import RunFolder
from tests.tiny_base import tiny_base
from tests.train.runs import DROPOUT, UNEVEN, bytes_of, curve, resume_in, run_in

ASK = GenerationSettings(max_new_tokens=2)


class Pauses(PauseWish):
    """Asks for a pause the so manieth times that the run looks whether one is asked for; `during` is each pause.

    `times` are those of the looks, in seconds.
    """

    def __init__(self, moments: set[int], during: Callable[[], None]) -> None:
        super().__init__()
        self._moments, self._during, self.looks, self.waits = moments, during, 0, 0
        self.times: list[float] = []

    @property
    def asked(self) -> bool:
        self.looks += 1
        self.times.append(time.monotonic())
        return self.looks in self._moments

    def wait(self) -> None:
        self.waits += 1
        self._during()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, int]:
    """A whole run, and how often it looked whether it is to pause."""
    folder, wish = tmp_path_factory.mktemp("undisturbed") / "run", Pauses(set(), list)
    run_in(folder, UNEVEN, lora=DROPOUT, pause=wish)
    return folder, wish.looks


def assert_same_end(folder: Path, expected: Path) -> None:
    for name in ("best", "last"):
        assert bytes_of(folder / name) == bytes_of(expected / name)
    assert curve(folder) == curve(expected)
    assert RunFolder(folder).read().status == "finished"


def test_a_run_that_pauses_everywhere_ends_as_undisturbed_and_others_have_the_model(tmp_path, undisturbed):
    expected, looks = undisturbed
    resident, folder, seen = Resident(tiny_base()), RunFolder(tmp_path / "run"), []

    def ask() -> None:
        run = folder.read()
        # The last whole step is safe, whatever happens to the machine now.
        assert run.step == 0 or run.step in folder.numbered()
        ids = torch.randint(10, 60, (12,), generator=torch.Generator().manual_seed(run.step)).tolist()
        columns = list(generate(resident, [Row(ids, "__base__")], ASK, should_stop=lambda: False))
        seen.append((run.status, len(columns)))

    wish = Pauses(set(range(1, looks + 1, 2)), ask)
    run_in(folder.path, UNEVEN, lora=DROPOUT, resident=resident, pause=wish)
    assert wish.looks == looks
    assert len(seen) == wish.waits > 20
    assert {status for status, _ in seen} == {"paused"}
    assert_same_end(folder.path, expected)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_machine_that_goes_down_in_a_pause_loses_nothing(tmp_path, undisturbed, share):
    expected, looks = undisturbed
    place, copy = tmp_path / "run", tmp_path / "copy" / "run"
    wish = Pauses({round(share * looks)}, lambda: shutil.copytree(place, copy))
    run_in(place, UNEVEN, lora=DROPOUT, pause=wish)
    before = RunFolder(copy).read()
    assert before.step > 0
    RunFolder(copy).update(process={})
    (left,) = mark_interrupted(copy.parent)
    assert (left.id, left.status, left.step) == ("run", "interrupted", before.step)
    told = []
    resume_in(copy, on_progress=told.append)
    assert told[0].step == before.step
    assert_same_end(copy, expected)


def test_a_stop_ends_a_pause_at_once_and_what_is_left_goes_on(tmp_path, undisturbed):
    expected, _ = undisturbed
    stopped = []
    wish = Pauses({17}, lambda: stopped.append(RunFolder(tmp_path / "run").read().step))
    run = run_in(tmp_path / "run", UNEVEN, lora=DROPOUT, pause=wish, should_stop=lambda: bool(stopped))
    assert (run.status, run.step) == ("stopped", stopped[0])
    assert run.step > 0
    # None of the step that would have come was computed: nobody looked again between two micro-batches.
    assert wish.looks == 17
    resume_in(tmp_path / "run")
    assert_same_end(tmp_path / "run", expected)


def test_a_pause_is_no_time_of_the_run(tmp_path):
    began = time.time()
    wish = Pauses({5, 9}, lambda: time.sleep(0.4))
    run = run_in(tmp_path / "run", UNEVEN, pause=wish)
    # A pause lies between the look that asked for it and the next one.
    assert 0.8 < run.paused_seconds < sum(wish.times[look] - wish.times[look - 1] for look in (5, 9))
    assert run.seconds < time.time() - began - 0.8
    assert run.seconds == pytest.approx(run.finished_at - run.started_at - run.paused_seconds)


def test_the_pace_leaves_a_pause_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    measured = Pace()

    def step(paused_before: float, paused_within: float) -> None:
        now[0] += paused_before
        measured.leave_out(paused_before)
        measured.count(100, 10)
        measured.begin_step()
        now[0] += 1.0 + paused_within
        measured.leave_out(paused_within)
        now[0] += 1.0
        measured.end_step()

    step(0.0, 0.0)
    step(60.0, 0.0)
    step(0.0, 600.0)
    assert measured.recent() == {"steps_per_second": 0.5, "tokens_per_second": 50.0}
    assert measured.take()["steps_per_second"] == 0.5
    assert measured.seconds_left(10) == 20.0
