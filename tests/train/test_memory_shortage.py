"""Memory runs out inside a step: the budget is halved once, the step is made again, and nothing tells it afterwards."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glmstudio.errors import StudioError
from glmstudio.terminal import RunPrinter
from glmstudio.training import trainer
from glmstudio.training.memory_shortage import TokenBudget, is_shortage
from glmstudio.training.runs import RunFolder
from glmstudio.ui.train_status import status_html
from tests.train.runs import DROPOUT, UNEVEN, assert_same, bytes_of, records, resume_in, run_in

SHORTAGES = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to …"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
]
REPOSITORY = Path(__file__).resolve().parents[2]
# Steps of four rows, in micro-batches of up to 200 tokens: the half of it cuts nearly every step in another way.
BUDGET = dataclasses.replace(UNEVEN, token_budget=200)


def short_at(monkeypatch: pytest.MonkeyPatch, *calls: int, error: Exception = SHORTAGES[0]) -> list[int]:
    """Lets memory run out in the so manieth forward passes of training, counted from 1; gives their tokens."""
    plain, sizes = trainer.target_loss, []

    def short(model, batch):
        loss = plain(model, batch)
        if model.training:
            sizes.append(batch["tokens"])
            if len(sizes) in calls:
                raise error
        return loss

    monkeypatch.setattr(trainer, "target_loss", short)
    return sizes


def test_a_run_that_was_short_is_the_run_with_half_the_budget(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "run"
    # In the second micro-batch of the first step: gradients are there and dropout has drawn its numbers.
    sizes = short_at(monkeypatch, 2)
    run = run_in(folder, BUDGET, lora=DROPOUT)
    monkeypatch.undo()
    assert (run.status, run.token_budget, run.halved_from) == ("finished", 100, 200)
    assert max(sizes[2:]) <= 100 < max(sizes[:2])
    events = [record for record in records(folder, "event") if record.values["code"] != "best"]
    assert [(event.step, event.values) for event in events] == [
        (0, {"code": "token-budget-halved", "from": 200, "to": 100})
    ]
    run_in(tmp_path / "half", dataclasses.replace(BUDGET, token_budget=100), lora=DROPOUT)
    for name in ("last", "best", "checkpoint-12"):
        assert bytes_of(folder / name) == bytes_of(tmp_path / "half" / name), name
    losses = [[record.values["loss"] for record in records(place, "train")] for place in (folder, tmp_path / "half")]
    assert losses[0] == losses[1]


def test_the_second_shortage_ends_the_run_also_behind_a_resume(tmp_path: Path, monkeypatch) -> None:
    folder, told = tmp_path / "run", []
    short_at(monkeypatch, 8)
    run_in(folder, BUDGET, lora=DROPOUT, on_progress=told.append, should_stop=lambda: told[-1].step >= 9)
    monkeypatch.undo()
    shutil.copytree(folder, tmp_path / "twin")
    sizes = short_at(monkeypatch, 3)
    with pytest.raises(StudioError, match="out-of-memory"):
        resume_in(folder)
    monkeypatch.undo()
    run = RunFolder(folder).read()
    assert (run.status, run.step, run.token_budget, run.halved_from) == ("failed", 9, 100, 200)
    assert max(sizes) <= 100
    # And a run that is not short again ends as if it had never been broken off, from the same checkpoint.
    assert resume_in(folder).status == "finished"
    resume_in(tmp_path / "twin")
    assert_same(folder, tmp_path / "twin")


def test_it_is_told_on_the_page_and_in_the_terminal(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "run"
    short_at(monkeypatch, 3)
    run = run_in(folder, BUDGET, on_progress=RunPrinter(RunFolder(folder), every=None))
    assert "memory ran out: token budget 200 --> 100" in capsys.readouterr().out
    assert "200 → 100" in status_html(run, None, {}, "en")
    assert "词元预算已从 200 减为 100" in status_html(run, None, {}, "zh")


def test_other_errors_are_no_shortage(tmp_path: Path, monkeypatch) -> None:
    short_at(monkeypatch, 2, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(StudioError, match="run-failed"):
        run_in(tmp_path / "run", BUDGET)
    assert RunFolder(tmp_path / "run").read().halved_from == 0
    assert not is_shortage(ValueError("DefaultCPUAllocator"))
    assert all(map(is_shortage, SHORTAGES))


@pytest.mark.parametrize(
    ("tokens", "halved_from", "after"),
    [
        (0, 0, 400),
        (600, 0, 300),
        # More than a step has is no budget to halve.
        (10**6, 0, 400),
        # No less than the longest row; and where each micro-batch is a row there is nothing to win.
        (150, 0, 90),
        (90, 0, None),
        (300, 600, None),
    ],
)
def test_what_half_a_budget_is(tokens: int, halved_from: int, after: int | None) -> None:
    told = []
    budget = TokenBudget(tokens, halved_from, largest=800, longest=90, on_halved=lambda *pair: told.append(pair))
    assert budget.halve() == (after is not None)
    assert budget.tokens == (after or tokens)
    assert [new for _, new in told] == [after] * (after is not None)
    assert not budget.halve()


@pytest.mark.slow
def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.short_of_memory", str(tmp_path / "run")]
    # Threads and their heaps would take address space of their own, as many as there are cores.
    alone = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    ended = subprocess.run(command, cwd=REPOSITORY, env=alone, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    run = RunFolder(tmp_path / "run").read()
    assert (run.status, run.step) == ("finished", 2)
    assert run.halved_from > run.token_budget > 0
