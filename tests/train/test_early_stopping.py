"""A run ends where its dev loss gets no better, keeps the best, and counts on where it went on in between."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from glmstudio.settings import LoraSettings
from glmstudio.terminal import RunPrinter
from glmstudio.training import trainer
from glmstudio.training.runs import RunFolder
from glmstudio.ui.language import LANGUAGES, finding_text
from glmstudio.ui.train_status import runs_html, status_html
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, DROPOUT, FAST, TRAIN, assert_same, bytes_of, checked, records, resume_in, run_in

# Three steps an epoch.
PATIENT = dataclasses.replace(
    FAST,
    per_device_train_batch_size=8,
    num_train_epochs=5,
    eval_steps=2,
    save_total_limit=99,
    early_stopping_patience=3,
    logging_steps=3,
)
# By step. Equal is no better.
LOSSES = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.0, 10: 2.1, 12: 1.0, 14: 0.9, 15: 0.8}


@pytest.fixture(autouse=True)
def dev_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    step, evaluate, plain = [0], trainer.AdapterTrainer.evaluate, trainer.target_loss

    def noted(self, *arguments, **named):
        step[0] = self.state.global_step
        return evaluate(self, *arguments, **named)

    def scripted(model, batch):
        loss = plain(model, batch)
        return loss if model.training else loss * 0 + LOSSES[step[0]] * len(batch["targets"])

    monkeypatch.setattr(trainer.AdapterTrainer, "evaluate", noted)
    monkeypatch.setattr(trainer, "target_loss", scripted)


def test_it_ends_and_keeps_the_best(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    printer = RunPrinter(RunFolder(folder), every=None)
    run = run_in(folder, PATIENT, lora=DROPOUT, on_progress=printer)
    assert (run.status, run.stopped_early, run.step, run.total) == ("finished", True, 10, 15)
    assert (run.best_step, run.best_eval_loss) == (4, pytest.approx(2.0))
    assert bytes_of(folder / "best") == bytes_of(folder / "checkpoint-4") != bytes_of(folder / "last")
    assert bytes_of(folder / "last") == bytes_of(folder / "checkpoint-10")
    events = [(event.step, event.values["code"]) for event in records(folder, "event")]
    assert events == [(2, "best"), (4, "best"), (10, "stopped-early")]
    assert sum(record.step == 10 for record in records(folder, "train")) == 1
    printer.close(run)
    told = capsys.readouterr().out
    assert "no better dev loss since step 4: stopped early" in told
    assert "stopped early at step 10/15" in told
    for language, words in zip(("en", "zh"), ("stopped early", "已提前停止"), strict=True):
        assert words in status_html(run, None, {}, language)
        assert words in runs_html([run], run.id, (), language)


@pytest.mark.parametrize("place", ["step 7", "behind the evaluation that ends it"])
def test_a_run_that_broke_off_ends_where_it_would_have(tmp_path: Path, place: str) -> None:
    def break_off(progress) -> None:
        if progress.step == 7 if place == "step 7" else progress.eval_loss == pytest.approx(2.1):
            raise KeyboardInterrupt

    run_in(tmp_path / "straight", PATIENT, lora=DROPOUT)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", PATIENT, lora=DROPOUT, on_progress=break_off)
    assert not RunFolder(tmp_path / "run").read().stopped_early
    assert resume_in(tmp_path / "run").stopped_early
    assert_same(tmp_path / "run", tmp_path / "straight")


def test_a_run_that_broke_off_behind_its_last_checkpoint_makes_no_more_step(tmp_path: Path) -> None:
    run_in(tmp_path / "straight", PATIENT, lora=DROPOUT)
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "last")
    RunFolder(tmp_path / "run").update(status="interrupted", stopped_early=False)
    steps = []
    run = resume_in(tmp_path / "run", on_progress=lambda progress: steps.append(progress.step))
    assert (set(steps), run.step, run.stopped_early) == ({10}, 10, True)
    assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize(("patience", "epochs"), [(0, 5), (4, 5), (3, 10 / 3)])
def test_it_goes_to_its_end(tmp_path: Path, patience: int, epochs: float) -> None:
    """Without patience, with enough of it, and where the last evaluation of all is the one that would end it."""
    settings = dataclasses.replace(PATIENT, early_stopping_patience=patience, num_train_epochs=epochs)
    run = run_in(tmp_path / "run", settings)
    assert (run.status, run.stopped_early) == ("finished", False)
    assert run.step == run.total == (15 if epochs == 5 else 10)
    assert "stopped-early" not in [event.values["code"] for event in records(tmp_path / "run", "event")]


def test_without_dev_rows_it_is_refused() -> None:
    found = {
        patience: [
            finding
            for finding in checked(
                tiny_base(), TRAIN, [], LoraSettings(), dataclasses.replace(FAST, early_stopping_patience=patience)
            )
            if finding.severity == "error"
        ]
        for patience in (0, 2)
    }
    assert [[finding.code for finding in errors] for errors in found.values()] == [[], ["early-stopping-no-dev"]]
    assert checked(tiny_base(), TRAIN, DEV, LoraSettings(), PATIENT)[0].severity != "error"
    assert all(finding_text(found[2][0], language) for language in LANGUAGES)
