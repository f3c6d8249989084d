"""What a run does and leaves: steps, records, checkpoints that plain PEFT loads, ends of every kind."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from glmstudio.errors import StudioError
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings
from glmstudio.training.batches import StepSampler, collate, render_rows
from glmstudio.training.runs import RunFolder
from tests.tiny_base import rows, tiny_base, tiny_model
from tests.train.runs import DEV, FAST, TRAIN, bytes_of, records, resume_in, run_in, weights


def own_dev_loss(adapter: Path) -> float:
    """The dev loss of a saved adapter on a fresh base, by plain PEFT and the model's own loss, one row at a time."""
    model = PeftModel.from_pretrained(tiny_model(), str(adapter)).eval()
    total = count = 0
    for row in render_rows(tiny_base(), DEV, FAST):
        batch = collate([row])
        labels = torch.full_like(batch["input_ids"], -100)
        labels.view(-1)[batch["places"] + 1] = batch["targets"]
        with torch.no_grad():
            total += model(input_ids=batch["input_ids"], labels=labels).loss.item() * len(batch["targets"])
        count += len(batch["targets"])
    return total / count


def test_a_run_makes_every_step_and_tells_them_in_order(tmp_path: Path) -> None:
    told = []
    run = run_in(tmp_path / "run-0003", on_progress=told.append)
    assert (run.status, run.step, run.total, run.number) == ("finished", 12, 12, 3)
    trained = records(tmp_path / "run-0003", "train")
    assert [record.step for record in trained] == list(range(1, 13))
    assert trained[-1].epoch == 2.0
    assert trained[-1].values["loss"] < trained[0].values["loss"]
    for record in trained:
        assert record.values["tokens_per_second"] > record.values["target_tokens_per_second"] > 0
        assert {"loss", "learning_rate", "grad_norm", "steps_per_second"} <= set(record.values)
    steps = [progress.step for progress in told]
    assert steps == sorted(steps)
    assert told[0].phase == "preparing"
    assert {progress.phase for progress in told[1:]} == {"training", "evaluating"}
    assert (told[-1].step, told[-1].total, told[-1].seconds_left) == (12, 12, 0.0)
    assert told[-1].memory_bytes > 0
    assert records(tmp_path / "run-0003", "system")[0].values["memory_bytes"] > 0
    # Who may read the run may read the adapters, which safetensors would keep to their owner.
    assert len({path.stat().st_mode for path in (tmp_path / "run-0003" / "best").iterdir()}) == 1


def test_best_is_the_lowest_dev_loss_and_loads_with_plain_peft(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        FAST, num_train_epochs=3, learning_rate=0.2, lr_scheduler_type="constant", eval_steps=2, save_total_limit=10
    )
    run = run_in(tmp_path / "run", settings)
    evaluated = {record.step: record.values["loss"] for record in records(tmp_path / "run", "eval")}
    assert list(evaluated) == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert run.best_step == min(evaluated, key=evaluated.get)
    assert run.best_eval_loss == min(evaluated.values())
    assert run.best_step < run.step, "this test needs a run that gets worse in the end"
    assert own_dev_loss(tmp_path / "run" / "best") == pytest.approx(run.best_eval_loss, abs=1e-5)
    assert own_dev_loss(tmp_path / "run" / "last") == pytest.approx(evaluated[18], abs=1e-5)
    for step, loss in evaluated.items():
        assert own_dev_loss(tmp_path / "run" / f"checkpoint-{step}") == pytest.approx(loss, abs=1e-5)
    events = [record.values for record in records(tmp_path / "run", "event")]
    assert [event["code"] for event in events] == ["best"] * len(events)
    assert events[0]["former"] is None
    for before, after in itertools.pairwise(events):
        assert after["former"] == before["loss"] > after["loss"]


def test_what_a_checkpoint_says_about_itself(tmp_path: Path) -> None:
    run_in(tmp_path / "run")
    for name in ("best", "last", "checkpoint-12"):
        folder = tmp_path / "run" / name
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
        about = json.loads((folder / "glmstudio.json").read_text())
        assert about["prompt_style"] == "instruction"
        assert (about["base"], about["family"], about["snapshot_id"]) == ("tiny", "chatglm", "abc")
        assert about["max_source_length"] == FAST.max_source_length
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= {
        path.name for path in (tmp_path / "run" / "checkpoint-12").iterdir()
    }
    assert not (tmp_path / "run" / ".writing").exists()


def test_run_json_is_complete_before_the_first_step(tmp_path: Path) -> None:
    seen = []

    def look(progress) -> None:
        seen.append(RunFolder(tmp_path / "run").read())

    run_in(tmp_path / "run", on_progress=look)
    assert (seen[0].status, seen[0].step) == ("running", 0)
    assert seen[0].settings == FAST
    assert (seen[0].base.source, seen[0].base.dtype, seen[0].base.device) == ("tiny", "float32", "cpu")
    assert seen[0].versions["torch"] == torch.__version__
    assert seen[1].total == 12


def test_numbered_checkpoints_come_when_asked_and_only_the_newest_stay(tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, save_steps=3, eval_steps=4, save_total_limit=2, logging_steps=5)
    run_in(tmp_path / "run", settings)
    assert RunFolder(tmp_path / "run").checkpoints() == ["best", "last", "checkpoint-12", "checkpoint-9"]
    assert [record.step for record in records(tmp_path / "run", "eval")] == [4, 8, 12]
    assert [record.step for record in records(tmp_path / "run", "train")] == [5, 10, 12]


def test_a_record_is_the_mean_since_the_record_before(tmp_path: Path) -> None:
    run_in(tmp_path / "every")
    run_in(tmp_path / "fifth", dataclasses.replace(FAST, logging_steps=5))
    every = [record.values["loss"] for record in records(tmp_path / "every", "train")]
    fifth = [record.values["loss"] for record in records(tmp_path / "fifth", "train")]
    assert fifth == pytest.approx([sum(every[:5]) / 5, sum(every[5:10]) / 5, sum(every[10:]) / 2], abs=1e-5)


def test_without_dev_rows_best_is_last(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", dev_rows=[])
    assert run.best_eval_loss is None
    assert records(tmp_path / "run", "eval") == []
    assert bytes_of(tmp_path / "run" / "best") == bytes_of(tmp_path / "run" / "last")
    assert "checkpoint-12" in RunFolder(tmp_path / "run").checkpoints()


def test_a_fraction_of_an_epoch_is_trained_and_evaluated(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", dataclasses.replace(FAST, num_train_epochs=0.5))
    assert (run.status, run.step, run.total, run.best_step) == ("finished", 3, 3, 3)


def test_stop_keeps_what_is_there(tmp_path: Path) -> None:
    told = []

    def stop() -> bool:
        return len(told) > 0 and told[-1].step >= 2

    run = run_in(tmp_path / "run", should_stop=stop, on_progress=told.append)
    assert (run.status, run.step, run.error) == ("stopped", 3, None)
    assert [record.step for record in records(tmp_path / "run", "train")] == [1, 2, 3]
    assert records(tmp_path / "run", "eval") == []
    assert RunFolder(tmp_path / "run").checkpoints() == ["best", "last", "checkpoint-3"]
    assert any(
        weight.abs().max() > 0 for name, weight in weights(tmp_path / "run" / "last").items() if "lora_B" in name
    )
    assert own_dev_loss(tmp_path / "run" / "last") > 0


def test_stop_between_two_micro_batches_leaves_the_last_whole_step(tmp_path: Path) -> None:
    asked = iter([False] * 6 + [True] * 100)
    settings = dataclasses.replace(FAST, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    run = run_in(tmp_path / "run", settings, should_stop=lambda: next(asked))
    assert (run.status, run.step) == ("stopped", 1)
    assert [record.step for record in records(tmp_path / "run", "train")] == [1]


def test_stop_while_the_dev_rows_are_read(tmp_path: Path) -> None:
    told = []
    run = run_in(
        tmp_path / "run", should_stop=lambda: told[-1].phase == "evaluating", on_progress=told.append, dev_rows=DEV * 4
    )
    assert (run.status, run.step) == ("stopped", 6)
    assert records(tmp_path / "run", "eval") == []


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    resident = Resident(tiny_base())
    with torch.no_grad():
        resident.base.model.transformer.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(StudioError) as told:
        run_in(tmp_path / "run", resident=resident)
    assert (told.value.code, told.value.params["step"]) == ("loss-not-finite-base", 1)
    assert len(set(told.value.params["rows"])) == FAST.per_device_train_batch_size


def test_a_run_that_diverges_keeps_its_checkpoints_and_leaves_the_base_usable(tmp_path: Path, monkeypatch) -> None:
    from glmstudio.training import trainer

    plain, calls = trainer.target_loss, []

    def poisoned(model, batch):
        calls.append(model.training)
        loss = plain(model, batch)
        return loss * float("inf") if sum(calls) == 8 else loss

    monkeypatch.setattr(trainer, "target_loss", poisoned)
    resident = Resident(tiny_base())
    with pytest.raises(StudioError, match="loss-not-finite"):
        run_in(tmp_path / "run", resident=resident)
    run = RunFolder(tmp_path / "run").read()
    assert run.status == "failed"
    told = run.error["params"]
    assert (run.error["code"], told["step"], told["rate"], told["lower"]) == ("loss-not-finite", 8, "0.02", "0.002")
    # The second step of the second epoch: the rows are told by their places, which begin at 1.
    steps = StepSampler([len(row.ids) for row in render_rows(resident.base, TRAIN, FAST)], 4, FAST.seed, alike=False)
    steps.set_epoch(1)
    assert told["rows"] == [row + 1 for row in list(steps)[1]]
    assert "StudioError" in RunFolder(tmp_path / "run").log_path.read_text()
    assert RunFolder(tmp_path / "run").checkpoints() == ["best", "checkpoint-6"]
    assert all(weight.isfinite().all() for weight in weights(tmp_path / "run" / "best").values())
    monkeypatch.undo()
    assert not any("lora" in name for name, _ in resident.base.model.named_modules())
    assert run_in(tmp_path / "again", resident=resident).status == "finished"


def test_losses_that_run_away_end_the_run_also_where_it_went_on_in_between(tmp_path: Path, monkeypatch) -> None:
    from glmstudio.training import trainer

    plain, steps = trainer.target_loss, []

    def runs_away(model, batch):
        steps.append(model.training)
        return plain(model, batch) * (5 if sum(steps) > 13 else 1)

    monkeypatch.setattr(trainer, "target_loss", runs_away)
    settings = dataclasses.replace(FAST, num_train_epochs=5, save_steps=16, learning_rate=1e-4)
    asked = []
    run = run_in(tmp_path / "run", settings, dev_rows=[], on_progress=asked.append, should_stop=lambda: sum(steps) > 15)
    assert (run.status, run.step) == ("stopped", 16)
    with pytest.raises(StudioError, match="loss-diverged"):
        resume_in(tmp_path / "run", dev_rows=[])
    run = RunFolder(tmp_path / "run").read()
    assert (run.status, run.error["params"]["step"], run.error["params"]["count"]) == ("failed", 23, 10)
    assert [record.step for record in records(tmp_path / "run", "train")] == list(range(1, 23))
    assert bytes_of(tmp_path / "run" / "checkpoint-16")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
        (OSError(28, "No space left on device"), "disk-full"),
        (KeyError("odd"), "run-failed"),
    ],
)
def test_failures_have_codes(tmp_path: Path, monkeypatch, error: Exception, code: str) -> None:
    def fail(*_):
        raise error

    monkeypatch.setattr("glmstudio.training.trainer.target_loss", fail)
    with pytest.raises(StudioError) as told:
        run_in(tmp_path / "run")
    assert told.value.code == code
    run = RunFolder(tmp_path / "run").read()
    assert (run.status, run.error["code"]) == ("failed", code)
    assert run.finished_at >= run.started_at
    assert "Traceback" in RunFolder(tmp_path / "run").log_path.read_text()


def test_a_run_that_is_broken_off_is_interrupted_and_leaves_the_base_usable(tmp_path: Path) -> None:
    resident, told = Resident(tiny_base()), []

    def break_off(progress) -> None:
        told.append(progress)
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "run", resident=resident, on_progress=break_off)
    assert RunFolder(tmp_path / "run").read().status == "interrupted"
    assert RunFolder(tmp_path / "run").checkpoints() == ["best", "checkpoint-6"]
    assert not (tmp_path / "run" / ".writing").exists()
    with resident.gate.turn():
        assert not any("lora" in name for name, _ in resident.base.model.named_modules())


def test_no_rows_and_wrong_layers_are_told(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="train-empty"):
        run_in(tmp_path / "a", train_rows=[])
    with pytest.raises(StudioError, match="lora-targets"):
        run_in(tmp_path / "b", lora=LoraSettings(target_modules=("typo",)))
    assert RunFolder(tmp_path / "b").read().error["params"]["names"] == "typo"


def test_nothing_is_printed(tmp_path: Path, capfd) -> None:
    run_in(tmp_path / "run")
    assert capfd.readouterr().out == ""


def test_a_bf16_base_stays_as_it_was_and_its_adapter_is_float32(tmp_path: Path) -> None:
    resident = Resident(tiny_base(torch.bfloat16))
    model = resident.base.model
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    config, attributes = model.config.to_dict(), set(vars(model))
    run = run_in(tmp_path / "run", resident=resident)
    losses = [record.values["loss"] for record in records(tmp_path / "run", "train")]
    assert losses[-1] < losses[0]
    assert run.base.dtype == "bfloat16"
    assert {weight.dtype for weight in weights(tmp_path / "run" / "last").values()} == {torch.float32}
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.to_dict() == config
    assert set(vars(model)) == attributes
    assert not model.training


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    resident = Resident(tiny_base())
    run_in(tmp_path / "plain")
    run_in(tmp_path / "saving", dataclasses.replace(FAST, gradient_checkpointing="on"), resident=resident)
    for name, weight in weights(tmp_path / "plain" / "last").items():
        torch.testing.assert_close(weights(tmp_path / "saving" / "last")[name], weight, atol=1e-5, rtol=1e-4)
    assert not resident.base.model.is_activation_checkpointing


def test_no_row_is_padded_in_training_and_evaluation(tmp_path: Path, monkeypatch) -> None:
    from glmstudio.training import trainer

    plain, shapes = trainer.target_loss, []

    def watched(model, batch):
        shapes.append(batch["input_ids"].shape)
        assert batch["input_ids"].shape == (1, sum(batch["lengths"])) == (1, batch["tokens"])
        return plain(model, batch)

    monkeypatch.setattr(trainer, "target_loss", watched)
    run_in(tmp_path / "run", train_rows=rows(30), dev_rows=DEV)
    assert len({width for _, width in shapes}) > 3
