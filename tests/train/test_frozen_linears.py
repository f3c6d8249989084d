"""oneDNN's products for the frozen layers of a base: the same training, the same answers, and nothing left behind."""

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from glmstudio.models import processor
from glmstudio.models.processor import multiplies_well, onednn_gains, onednn_takes
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import frozen_linears, loss
from glmstudio.training.batches import render_rows
from glmstudio.training.frozen_linears import FrozenLinear, drop_frozen_linears, use_frozen_linears
from glmstudio.training.thin import use_thin_products
from tests.tiny_base import rows, tiny_base
from tests.train.runs import FAST, bytes_of, run_in

UPDATES = 20
GIBIBYTE = 2**30
# How far the losses and the norms of the gradients may be from the plain layers', relatively.
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-3, 2e-2)}
BFLOAT16 = pytest.mark.skipif(not onednn_takes(torch.bfloat16), reason="oneDNN has no bfloat16 on this processor")
NUMBER_TYPES = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=BFLOAT16)])


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """The tests' bases are smaller than any layer that gains, and what is right need not be fast here."""
    monkeypatch.setattr(frozen_linears, "FEWEST_WEIGHTS", 1)
    monkeypatch.setattr(frozen_linears, "onednn_gains", onednn_takes)
    monkeypatch.setattr(frozen_linears, "multiplies_well", lambda: False)


def trained(dtype: torch.dtype, *, fast: bool) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of updates of the same adapter on the same batch, at the usual rate."""
    resident = Resident(tiny_base(dtype))
    torch.manual_seed(1)
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4))
    if fast:
        use_thin_products(model)
        assert use_frozen_linears(resident) > 0
    batch = loss.batch_form(model)(loss_rows(resident))
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=2e-4)
    curve = []
    for _ in range(UPDATES):
        value = loss.target_loss(model, batch) / len(batch["targets"])
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        curve.append((value.item(), norm.item()))
    return curve


def loss_rows(resident: Resident) -> list:
    return render_rows(resident.base, rows(5), TrainingSettings())


@NUMBER_TYPES
def test_updates_are_those_of_the_plain_layers(dtype: torch.dtype) -> None:
    loss_bound, norm_bound = BOUNDS[dtype]
    plain, fast = (trained(dtype, fast=choice) for choice in (False, True))
    assert plain[-1][0] < plain[0][0]
    for (expected, expected_norm), (value, norm) in zip(plain, fast, strict=True):
        assert value == pytest.approx(expected, rel=loss_bound)
        assert norm == pytest.approx(expected_norm, rel=norm_bound)


@NUMBER_TYPES
def test_unpacked_gives_the_bits_of_packed(dtype: torch.dtype, monkeypatch) -> None:
    found = []
    for free in (GIBIBYTE, 0):
        monkeypatch.setattr(frozen_linears, "free_memory", lambda device, free=free: free)
        torch.manual_seed(0)
        resident = Resident(tiny_base(dtype))
        assert (use_frozen_linears(resident) > 0) == (free > 0)
        layers = [layer for layer in resident.base.model.modules() if isinstance(layer, FrozenLinear)]
        assert layers
        inputs = [torch.randn(7, layer.in_features).to(dtype).requires_grad_() for layer in layers]
        outputs = [layer(each) for layer, each in zip(layers, inputs, strict=True)]
        torch.cat([output.flatten() for output in outputs]).float().square().sum().backward()
        found.append([*outputs, *(each.grad for each in inputs)])
        if dtype == torch.bfloat16:
            for layer, each, output in zip(layers, inputs, outputs, strict=True):
                assert torch.equal(output, nn.functional.linear(each, layer.weight, layer.bias))
    assert all(torch.equal(packed, plain) for packed, plain in zip(*found, strict=True))


def test_copies_stay_within_a_quarter_of_the_free_memory(monkeypatch) -> None:
    resident = Resident(tiny_base())
    largest = max(layer.weight.nbytes for layer in resident.base.model.modules() if type(layer) is nn.Linear)
    monkeypatch.setattr(frozen_linears, "free_memory", lambda device: 8 * largest)
    assert 0 < use_frozen_linears(resident) <= 2 * largest


def test_nothing_is_left_behind_and_answers_are_torchs_own() -> None:
    resident = Resident(tiny_base())
    ids = torch.arange(10, 30)[None]
    before = resident.forward(["__base__"], input_ids=ids).logits
    names = list(resident.base.model.state_dict())
    use_frozen_linears(resident)
    # The copies are there once, for both.
    frozen = [layer for layer in resident.base.model.modules() if isinstance(layer, FrozenLinear)]
    assert all(resident._packed.of(layer.weight) is layer.ahead for layer in frozen)
    assert list(resident.base.model.state_dict()) == names
    assert torch.equal(resident.forward(["__base__"], input_ids=ids).logits, before)
    drop_frozen_linears(resident)
    for layer in resident.base.model.modules():
        assert not isinstance(layer, FrozenLinear)
        assert not {"ahead", "back", "resident"} & vars(layer).keys()


@pytest.mark.parametrize("able", [{}, {"avx512_f"}, {"avx512_bf16", "amx_bf16"}])
def test_a_processor_that_would_not_gain_keeps_its_layers(able: set, monkeypatch) -> None:
    monkeypatch.setattr(frozen_linears, "onednn_gains", onednn_gains)
    monkeypatch.setattr(frozen_linears, "multiplies_well", multiplies_well)
    monkeypatch.setattr(processor, "instructions", lambda: able)
    for dtype in (torch.bfloat16, torch.float16):
        resident = Resident(tiny_base(dtype))
        assert use_frozen_linears(resident) == 0
        assert not any(isinstance(layer, FrozenLinear) for layer in resident.base.model.modules())


@NUMBER_TYPES
def test_trained_while_answering_is_trained_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    settings = dataclasses.replace(FAST, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    run_in(tmp_path / "alone", settings, resident=Resident(tiny_base(dtype)))
    asked, ended, answers = Resident(tiny_base(dtype)), threading.Event(), []
    ids = torch.arange(10, 40)[None]
    answers.append(asked.forward(["__base__"], input_ids=ids).logits)

    def ask() -> None:
        while not ended.is_set():
            answers.append(asked.forward(["__base__"], input_ids=ids).logits)

    asking = threading.Thread(target=ask)

    def follow(progress) -> None:
        if progress.step == 1 and not asking.is_alive():
            asking.start()

    run_in(tmp_path / "asked", settings, resident=asked, on_progress=follow)
    ended.set()
    asking.join(600)
    assert len(answers) > 5
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "alone" / name) == bytes_of(tmp_path / "asked" / name)
    assert not any(isinstance(layer, FrozenLinear) for layer in asked.base.model.modules())
