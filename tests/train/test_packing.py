"""Rows that lie end to end give the loss and the gradients of rows padded side by side, in every family."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from glmstudio.models import varlen
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base import Base
from glmstudio.models.chat_format import Rendered
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base
from glmstudio.models.packing import Packing
from glmstudio.models.resident import IN_TRAINING, Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import loss
from glmstudio.training.batches import collate, pack, render_rows
from tests.tiny_base import rows, tiny_base
from tests.tiny_families import QUIRKS, native_folder
from tests.unit.golden_cases import CHATGLM, GRADIENT, LOSS, cases, gradients, names, tensor, valid_rows

# The same tokens to begin with, as instructions of one person often have.
TASKS = [f"Read the text below with care and then name the {what} of it." for what in ("colour", "city and the rest")]
BASES = {"chatglm": tiny_base, "mistral_window": None} | dict.fromkeys(name for name in QUIRKS if FAMILIES[name].packs)


def base_of(name: str, folder: Path, dtype: str = "fp32") -> Base:
    if name == "chatglm":
        return tiny_base({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    base = load_base(native_folder(name.removesuffix("_window"), folder), device="cpu", dtype=dtype)
    if name.endswith("_window"):
        base.model.config.sliding_window = 16
    return base


def adapted(base: Base, *, checkpointing: bool = False) -> torch.nn.Module:
    """A model with an adapter that does something, in training mode."""
    resident = Resident(base)
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4, lora_dropout=0.0))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.1)
    if checkpointing:
        base.model.activation_checkpointing_enable()
    return model.train()


def taught(model: torch.nn.Module, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one micro-batch."""
    model.zero_grad()
    with loss.ready(model) if "lengths" in batch else loss._behind_prefix(model):
        mean = loss.target_loss(model, batch) / len(batch["targets"])
        mean.backward()
    return mean.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def rendered(base: Base) -> list[Rendered]:
    return render_rows(base, rows(7), TrainingSettings())


def assert_same(ours: tuple, theirs: tuple, loss_within: float, gradient_within: float) -> None:
    assert abs(ours[0] - theirs[0]) < loss_within
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert gradient.norm() > 0, name
        assert (ours[1][name] - gradient).norm() < gradient_within * gradient.norm(), name


def alike(base: Base) -> list[Rendered]:
    """Rows of two instructions, some with the same input, too; a lone one; and one that another begins with."""
    made = [replace(row, instruction=TASKS[number % 2], input="" if number > 7 else row.input)
            for number, row in enumerate(rows(12))]  # fmt: skip
    return render_rows(base, [*made, replace(made[0], instruction="lone"), made[3]], TrainingSettings())


@pytest.mark.parametrize(("name", "dtype"), [*((name, "fp32") for name in BASES if name != "chatglm"), ("glm", "bf16")])
def test_rows_that_begin_alike_teach_the_same_with_their_beginning_computed_once(
    name: str, dtype: str, tmp_path: Path
) -> None:
    base = base_of(name, tmp_path, dtype)
    model, some = adapted(base), alike(base)
    batch = loss.batch_form(model)(some)
    fronts = [front for front in batch["continues"] if front is not None]
    assert len(fronts) == 13
    assert len(set(fronts)) == 2
    assert batch["input_ids"].numel() < 0.7 * batch["tokens"]
    within = (1e-5, 1e-4) if dtype == "fp32" else (0.05, 0.05)
    assert_same(taught(model, batch), taught(model, pack(some)), *within)
    assert loss.agrees_with_model(model, some[0])


def test_no_beginning_is_shared_where_rows_would_differ_in_it(tmp_path: Path) -> None:
    base = tiny_base()
    model = adapted(base)
    assert not any(loss.batch_form(model)(alike(base))["continues"])
    base = base_of("glm", tmp_path)
    model, some = adapted(base), alike(base)
    model.peft_config[IN_TRAINING].lora_dropout = 0.1
    assert not any(loss.batch_form(model)(some)["continues"])


@pytest.mark.parametrize("name", BASES)
def test_packed_rows_teach_what_padded_rows_teach(name: str, tmp_path: Path) -> None:
    base = base_of(name, tmp_path)
    model, some = adapted(base), rendered(base)
    assert len({len(row.ids) for row in some}) > 2
    usual = base.model.config._attn_implementation
    assert_same(taught(model, pack(some)), taught(model, collate(some)), 1e-5, 1e-4)
    assert loss.batch_form(model)(some).keys() == pack(some).keys()
    assert base.model.config._attn_implementation == usual != varlen.NAME


@pytest.mark.parametrize("name", BASES)
def test_bf16_agrees_within_its_own_noise(name: str, tmp_path: Path) -> None:
    base = base_of(name, tmp_path, "bf16")
    model, some = adapted(base), rendered(base)
    ours, theirs = taught(model, pack(some)), taught(model, collate(some))
    assert ours[0] == pytest.approx(theirs[0], rel=3e-3)
    together = [torch.cat([gradient.flatten() for gradient in side[1].values()]) for side in (ours, theirs)]
    assert F.cosine_similarity(*together, dim=0) > 0.99


@pytest.mark.parametrize("name", ["chatglm", "glm", "glm4_moe", "gemma3_text"])
def test_gradient_checkpointing_runs_the_same_attention_again(name: str, tmp_path: Path) -> None:
    base = base_of(name, tmp_path)
    some = rendered(base)
    expected = taught(adapted(base), pack(some))
    again = base_of(name, tmp_path)
    calls, attend = [], varlen.attend
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            ALL_ATTENTION_FUNCTIONS._global_mapping, varlen.NAME, lambda *a, **k: calls.append(1) or attend(*a, **k)
        )
        assert_same(taught(adapted(again, checkpointing=True), pack(some)), expected, 1e-6, 1e-5)
    assert len(calls) == 4


def test_a_row_is_told_nothing_by_its_neighbours() -> None:
    base = tiny_base()
    model, some = adapted(base), rendered(base)
    with torch.no_grad():
        alone = [loss.target_loss(model, pack([row])).item() for row in some]
        together = loss.target_loss(model, pack(some)).item()
        turned = loss.target_loss(model, pack(some[::-1])).item()
    assert together == pytest.approx(sum(alone), rel=1e-6)
    assert turned == pytest.approx(sum(alone), rel=1e-6)


@pytest.mark.parametrize("adapter", [False, True])
def test_packed_rows_give_the_loss_and_gradients_of_the_original_chatglm(adapter: bool) -> None:
    for name in names("train", adapter=adapter):
        case = cases()[name]
        base = load_base(CHATGLM, device="cpu", dtype="fp32")
        model = load_adapter(base, CHATGLM / case["adapter"], trainable=True) if adapter else base.model
        decoder = base.model.get_decoder()
        ids, labels, valid = tensor(case["input_ids"]), tensor(case["labels"]), valid_rows(case)
        parts = [row[shown][None] for row, shown in zip(ids, valid, strict=True)]
        goals = torch.cat([F.pad(row[shown][1:], (0, 1), value=-100) for row, shown in zip(labels, valid, strict=True)])
        inputs = varlen.packed_inputs(decoder.config, torch.cat(parts, 1), [part.shape[1] for part in parts])
        with varlen.inside_samples(decoder.config):
            hidden = decoder(**inputs, use_cache=False).last_hidden_state[0]
        mean = F.cross_entropy(base.model.lm_head(hidden), goals)
        mean.backward()
        assert abs(mean.item() - case["loss"]) < LOSS
        found = gradients(model)
        for path, norm in case.get("grad_norms", {}).items():
            assert abs(found[path].norm().item() - norm) < GRADIENT * norm, path
        for path, stored in case.get("grads", {}).items():
            expected = tensor(stored)
            assert (found[path] - expected).norm() < GRADIENT * expected.norm(), path


@pytest.mark.parametrize(
    ("contexts", "front", "window"),
    [((3, 0, 0, 12), None, None), ((3, 0, 0, 12), None, 4), ((0, 0, 0, 0), 0, None), ((0, 0, 0, 0), 0, 4)],
)
def test_both_ways_on_the_cpu_are_the_formula(
    contexts: tuple[int, ...], front: int | None, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    packing = Packing((5, 9, 1, 12), contexts, (None, None, None, front))
    states = [torch.randn(1, heads, 27, 8).bfloat16().requires_grad_() for heads in (4, 2, 2)]
    direction = torch.randn(1, 27, 4, 8)
    place = torch.arange(27)
    sample = torch.repeat_interleave(torch.arange(4), torch.tensor(packing.lengths))
    start = torch.tensor([0, 5, 14, 15])[sample]
    sees = (place <= place[:, None]) & (place > place[:, None] - (window or 27))
    sees |= (place - start) < torch.tensor(packing.contexts)[sample]
    sees &= sample == sample[:, None]
    if front == 0:
        # The last sample goes on where the first one ends: as if its 12 tokens were at 5 to 16.
        far = torch.arange(5, 17)[:, None] - torch.arange(5)
        sees[15:, :5] = far < (window or 27)
    query, key, value = (part.double() for part in states)
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    formula = (weights @ value.repeat_interleave(2, 1)).transpose(1, 2)
    expected = [formula, *torch.autograd.grad(formula, states, direction.double())]
    for most in (varlen.SHORT_TOKENS, 0):
        monkeypatch.setattr(varlen, "SHORT_TOKENS", most)
        ours, _ = varlen.attend(None, *states, None, packing=packing, scaling=0.3, sliding_window=window)
        found = [ours, *torch.autograd.grad(ours, states, direction.bfloat16())]
        for actual, right in zip(found, expected, strict=True):
            assert actual.shape == right.shape
            assert (actual.double() - right).norm() < 0.01 * right.norm()
