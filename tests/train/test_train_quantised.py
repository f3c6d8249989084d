"""Training on bases of 8 and 4 bits: the loss falls, the base stays as it was, the adapter answers on it again."""

import dataclasses

import pytest
import torch

from glmstudio.models.quantisation.quantising import shrink_to
from glmstudio.models.resident import Resident
from glmstudio.training.runs import RunFolder
from tests.tiny_base import tiny_base
from tests.train.runs import FAST, records, run_in

CPU = torch.device("cpu")
IDS = torch.tensor([[10, 11, 12, 3, 4, 20], [30, 31, 32, 3, 4, 21]])


def quantised(quantization: str, dtype: torch.dtype = torch.float32) -> Resident:
    base = tiny_base(dtype)
    shrink_to(quantization, CPU, dtype)(base.model)
    return Resident(dataclasses.replace(base, quantization=quantization))


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("8bit", torch.float32), ("4bit", torch.float32), ("4bit", torch.bfloat16)]
)
def test_twenty_steps_lower_the_loss(tmp_path, quantization, dtype):
    resident = quantised(quantization, dtype)
    before = resident.forward(["__base__"] * 2, input_ids=IDS).logits
    settings = dataclasses.replace(FAST, num_train_epochs=3.4, logging_steps=1)
    run = run_in(tmp_path / "run", settings, resident=resident)
    assert (run.status, run.step, run.base.quantization) == ("finished", 21, quantization)
    losses = [record.values["loss"] for record in records(tmp_path / "run", "train")]
    assert len(losses) >= 20
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert torch.equal(resident.forward(["__base__"] * 2, input_ids=IDS).logits, before)
    resident.load("tuned", RunFolder(tmp_path / "run").path / "last")
    both = resident.forward(["__base__", "tuned"], input_ids=IDS).logits
    assert torch.equal(both[0], before[0])
    assert (both[1] - before[1]).abs().max() > 0.1
