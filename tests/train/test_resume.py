"""A run that was stopped or broke off goes on as if nothing had happened: the same bytes, the same curve."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

from glmstudio.errors import StudioError
from glmstudio.models.resident import Resident
from glmstudio.settings import TrainingSettings
from glmstudio.training.resume import evaluation_due, reopen, standing
from glmstudio.training.runs import RunFolder
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, DROPOUT, FAST, UNEVEN, assert_same, bytes_of, records, resume_in, run_in


def break_off_at(step: int, phase: str = "training"):
    def follow(progress) -> None:
        if progress.step == step and progress.phase == phase:
            raise KeyboardInterrupt

    return follow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_in(folder, UNEVEN, lora=DROPOUT)
    return folder


@pytest.mark.parametrize("step", [1, 4, 7, 11, 14])
def test_a_run_that_broke_off_goes_on_bit_for_bit(tmp_path: Path, undisturbed: Path, step: int) -> None:
    told = []
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", UNEVEN, lora=DROPOUT, on_progress=break_off_at(step))
    torch.manual_seed(999)
    run = resume_in(tmp_path / "run", on_progress=told.append)
    assert_same(tmp_path / "run", undisturbed)
    assert (told[0].step, told[0].total) == (step // 3 * 3, 15)
    assert (told[-1].step, told[-1].total) == (15, 15)
    assert run.seconds > run.finished_at - run.started_at > 0


def test_every_checkpoint_of_a_run_leads_to_the_same_end(tmp_path: Path) -> None:
    settings = dataclasses.replace(UNEVEN, eval_steps=0, num_train_epochs=1.5, save_steps=1, save_total_limit=99)
    run_in(tmp_path / "run", settings, lora=DROPOUT)
    resident = Resident(tiny_base())
    for step in (2, 6, 9):
        shutil.copytree(tmp_path / "run", tmp_path / f"from-{step}")
        folder = RunFolder(tmp_path / f"from-{step}")
        folder.update(status="failed")
        for later in range(step + 1, 10):
            shutil.rmtree(folder.path / f"checkpoint-{later}")
        # Saved in the middle of the two: behind the step and before the evaluation that ends the epoch.
        lines = folder.metrics_path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not (f'"step": {step},' in line and '"train"' not in line)]
        folder.metrics_path.write_text("".join(kept))
        resume_in(folder.path, resident=resident)
        assert_same(folder.path, tmp_path / "run")


def test_stopped_and_gone_on_with_is_straight(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        FAST, num_train_epochs=3, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    run_in(tmp_path / "straight", settings, lora=DROPOUT)
    resident, asked = Resident(tiny_base()), iter([False] * 9 + [True])
    # Asked for behind the second micro-batch of the third step.
    run = run_in(tmp_path / "run", settings, lora=DROPOUT, resident=resident, should_stop=lambda: next(asked))
    assert (run.status, run.step) == ("stopped", 2)
    assert (tmp_path / "run" / "checkpoint-2" / "optimizer.pt").is_file()
    told = []
    run = resume_in(
        tmp_path / "run",
        resident=resident,
        on_progress=told.append,
        # At the end of the first epoch, whose dev rows are not read then.
        should_stop=lambda: told[-1].step >= 6,
    )
    assert (run.status, run.step) == ("stopped", 6)
    assert records(tmp_path / "run", "eval") == []
    # And again while they are read, now before the first step.
    run = resume_in(
        tmp_path / "run",
        resident=resident,
        on_progress=told.append,
        should_stop=lambda: told[-1].phase == "evaluating",
    )
    assert (run.status, run.step, records(tmp_path / "run", "eval")) == ("stopped", 6, [])
    assert resume_in(tmp_path / "run", resident=resident).status == "finished"
    assert_same(tmp_path / "run", tmp_path / "straight")


def test_another_adapter_on_the_base_changes_nothing(tmp_path: Path, undisturbed: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", UNEVEN, lora=DROPOUT, on_progress=break_off_at(8))
    resident = Resident(tiny_base())
    resident.load("run@other", undisturbed / "best")
    ids = torch.arange(10, 30)[None].repeat(2, 1)
    before = resident.forward(["run@other", "__base__"], input_ids=ids).logits
    resume_in(tmp_path / "run", resident=resident)
    assert_same(tmp_path / "run", undisturbed)
    assert torch.equal(resident.forward(["run@other", "__base__"], input_ids=ids).logits, before)


def test_without_a_checkpoint_it_begins_anew_with_the_same_seed(tmp_path: Path) -> None:
    run_in(tmp_path / "straight", lora=DROPOUT)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", lora=DROPOUT, on_progress=break_off_at(4))
    assert RunFolder(tmp_path / "run").checkpoints() == []
    resume_in(tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "straight")


def test_a_best_beyond_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, eval_steps=1, save_steps=100)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", settings, on_progress=break_off_at(4))
    best, former = bytes_of(tmp_path / "run" / "best"), RunFolder(tmp_path / "run").read()
    assert former.best_step == 3
    told = []
    run = resume_in(tmp_path / "run", on_progress=told.append, should_stop=lambda: told[-1].step >= 1)
    assert (run.step, run.best_step, run.best_eval_loss) == (1, 3, former.best_eval_loss)
    assert bytes_of(tmp_path / "run" / "best") == best


def test_a_checkpoint_that_is_not_whole_does_not_count(tmp_path: Path, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.update(status="failed")
    assert standing(folder).step == 15
    (folder.path / "checkpoint-15" / "optimizer.pt").unlink()
    (folder.path / "checkpoint-12" / "adapter_model.safetensors").write_bytes(b"")
    assert standing(folder).step == 9
    resume_in(folder.path)
    assert_same(folder.path, undisturbed)


@pytest.mark.parametrize("name", ["best", "last"])
def test_what_was_moved_away_for_a_newer_one_comes_back(
    tmp_path: Path, undisturbed: Path, monkeypatch, name: str
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    kept, replace = bytes_of(folder.path / name), os.replace

    def killed(source, target) -> None:
        if Path(target) == folder.path / name:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.put(name, lambda path: (path / "adapter_model.safetensors").write_bytes(b"new") and None)
    monkeypatch.undo()
    assert not (folder.path / name).exists()
    folder.update(status="stopped")
    reopen(folder, tiny_base())
    assert bytes_of(folder.path / name) == kept
    assert not folder.aside.exists()


def test_what_cannot_be_gone_on_with_is_told(tmp_path: Path, undisturbed: Path) -> None:
    base = tiny_base()
    with pytest.raises(StudioError, match="resume-nothing"):
        reopen(RunFolder(tmp_path / "none"), base)
    with pytest.raises(StudioError, match="resume-finished"):
        reopen(RunFolder(undisturbed), base)
    shutil.copytree(undisturbed, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = folder.update(status="stopped")
    for other in (dataclasses.replace(base, source="other"), tiny_base(torch.bfloat16)):
        with pytest.raises(StudioError, match="resume-base"):
            reopen(folder, other)
    assert folder.read() == before
    reopen(folder, dataclasses.replace(base, device=torch.device("meta")))
    with pytest.raises(StudioError, match="run-active"):
        reopen(folder, base)


@pytest.mark.parametrize(
    ("changes", "due"),
    [({}, [6, 12, 15]), ({"eval_steps": 4}, [4, 8, 12, 15]), ({"per_device_train_batch_size": 50}, [1, 2, 3])],
)
def test_the_steps_that_are_evaluated(tmp_path: Path, changes: dict[str, int], due: list[int]) -> None:
    settings = dataclasses.replace(FAST, num_train_epochs=2.5, **changes)
    total = run_in(tmp_path / "run", settings, dev_rows=DEV[:1]).total
    assert [record.step for record in records(tmp_path / "run", "eval")] == due
    assert [step for step in range(1, total + 1) if evaluation_due(step, 22, settings)] == due


def test_a_run_without_dev_rows_evaluates_nothing_when_it_goes_on(tmp_path: Path) -> None:
    told = []
    settings = TrainingSettings(num_train_epochs=2, learning_rate=2e-2, per_device_train_batch_size=8)
    run_in(tmp_path / "run", settings, dev_rows=[], on_progress=told.append, should_stop=lambda: told[-1].step >= 2)
    run = resume_in(tmp_path / "run", dev_rows=[])
    assert (run.status, run.step, records(tmp_path / "run", "eval")) == ("finished", 6, [])
    assert bytes_of(tmp_path / "run" / "best") == bytes_of(tmp_path / "run" / "last")
