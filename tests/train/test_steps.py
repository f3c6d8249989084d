"""An optimizer step is the same however it is cut: by rows, by any token budget, packed or padded."""

import dataclasses
from pathlib import Path

import pytest
import torch

from glmstudio.settings import TrainingSettings
from glmstudio.training import train as training
from glmstudio.training import trainer
from glmstudio.training.runs import RunFolder
from tests.train.runs import DROPOUT, FAST, UNEVEN, assert_same, records, resume_in, run_in

# Eight rows of 40 to 80 tokens a step.
STEP = dataclasses.replace(FAST, per_device_train_batch_size=8, num_train_epochs=0.5, max_grad_norm=0.0)
NO_DROPOUT = "glmstudio.models.adapters.prefix.DROPOUT"


def taught(
    folder: Path, settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], list[dict[str, torch.Tensor]], list[int]]:
    """(each step's loss, the gradients of each step, tokens of each training micro-batch) of an adapter that already
    does something."""
    gradients, sizes = [], []
    fresh, norm, loss = training._new_adapter, trainer.AdapterTrainer._get_grad_norm, trainer.target_loss

    def stirred(*arguments) -> torch.nn.Module:
        model = fresh(*arguments)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.1)
        return model

    def noted(self, model, **known) -> float:
        trained = (pair for pair in model.named_parameters() if pair[1].requires_grad)
        gradients.append({name: weight.grad.clone() for name, weight in trained})
        return norm(self, model, **known)

    def counted(model, batch) -> torch.Tensor:
        if model.training:
            sizes.append(batch["input_ids"].numel())
        return loss(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_new_adapter", stirred)
        patch.setattr(trainer.AdapterTrainer, "_get_grad_norm", noted)
        patch.setattr(trainer, "target_loss", counted)
        patch.setattr(NO_DROPOUT, 0.0)
        run_in(folder, settings, dev_rows=[])
    return [record.values["loss"] for record in records(folder, "train")], gradients, sizes


@pytest.mark.parametrize("method", ["lora", "ptuning"])
def test_no_token_budget_changes_a_loss_or_a_gradient(tmp_path: Path, monkeypatch, method: str) -> None:
    # At this rate the weights stay where rounding put them, so that later steps can be compared as strictly.
    settings = dataclasses.replace(STEP, method=method, pre_seq_len=6, learning_rate=1e-6)
    whole_losses, whole, whole_sizes = taught(tmp_path / "whole", settings, monkeypatch)
    assert len(whole_losses) == len(whole) == len(whole_sizes) == 2
    for budget in (1, 150, 250, 10**6):
        budgeted = dataclasses.replace(settings, token_budget=budget)
        losses, gradients, sizes = taught(tmp_path / f"budget-{budget}", budgeted, monkeypatch)
        assert losses == pytest.approx(whole_losses, abs=1e-6)
        for step, expected in zip(gradients, whole, strict=True):
            for name, gradient in expected.items():
                assert gradient.norm() > 0, name
                assert (step[name] - gradient).norm() < 1e-5 * gradient.norm(), name
        if budget == 1:
            assert len(sizes) == 16
        else:
            assert max(sizes) <= budget
            assert (len(sizes) > 2) == (budget < 10**6)


def test_a_budget_is_written_down_and_dev_rows_are_cut_by_it(tmp_path: Path, monkeypatch) -> None:
    sizes, loss = {True: [], False: []}, trainer.target_loss

    def counted(model, batch) -> torch.Tensor:
        sizes[model.training].append(batch["tokens"])
        return loss(model, batch)

    monkeypatch.setattr(trainer, "target_loss", counted)
    run = run_in(tmp_path / "run", dataclasses.replace(FAST, token_budget=160, gradient_checkpointing="on"))
    assert (run.token_budget, run.checkpointing) == (160, True)
    for found in sizes.values():
        assert 100 < max(found) <= 160


def test_a_run_goes_on_with_the_budget_that_it_had(tmp_path: Path) -> None:
    run_in(tmp_path / "straight", UNEVEN, lora=DROPOUT)
    told = []
    run_in(tmp_path / "run", UNEVEN, lora=DROPOUT, on_progress=told.append, should_stop=lambda: told[-1].step >= 4)
    RunFolder(tmp_path / "run").update(settings=dataclasses.replace(UNEVEN, token_budget=0))
    assert resume_in(tmp_path / "run").token_budget == UNEVEN.token_budget > 0
    assert_same(tmp_path / "run", tmp_path / "straight", ["last", "best"])
