"""The loss is the model's own, made from a few rows of logits only."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, GlmConfig, GlmForCausalLM

from glmstudio.models.base import Base
from glmstudio.models.families.family import Family
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import loss
from glmstudio.training.batches import collate, render_rows
from glmstudio.training.thin import drop_thin_products, use_thin_products
from tests.tiny_base import rows, tiny_base, tiny_tokenizer

GLM = {
    "vocab_size": 104,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 1,
}


def glm_base() -> Base:
    torch.manual_seed(0)
    model = GlmForCausalLM(GlmConfig(**GLM))
    return Base(model, tiny_tokenizer(), Family("glm", "GLM"), "tiny-glm", torch.device("cpu"), torch.float32)


def prepared(base: Base) -> tuple[object, dict]:
    """(model with an adapter that does something, a batch of rows of different lengths)."""
    resident = Resident(base)
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.1)
    return model, collate(render_rows(base, rows(5), TrainingSettings()))


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("make_base", [tiny_base, glm_base])
@pytest.mark.parametrize("chunk", [104 * 7, 2**24])
def test_loss_and_gradient_are_those_of_the_model(make_base, chunk, monkeypatch) -> None:
    monkeypatch.setattr(loss, "LARGEST_CHUNK", chunk)
    model, batch = prepared(make_base())
    labels = torch.full_like(batch["input_ids"], -100)
    labels.view(-1)[batch["places"] + 1] = batch["targets"]
    theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    theirs.backward()
    expected = gradients(model)
    ours = loss.target_loss(model, batch) / len(batch["targets"])
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    actual = gradients(model)
    assert actual.keys() == expected.keys()
    assert all("lora_" in name for name in actual)
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-4)


def test_thin_products_change_no_gradient() -> None:
    model, batch = prepared(tiny_base())
    theirs = loss.target_loss(model, batch)
    theirs.backward()
    expected, parameters = gradients(model), dict(model.named_parameters())
    use_thin_products(model)
    assert sum("forward" in vars(module) for module in model.modules() if isinstance(module, LoraLayer)) == 8
    assert {name: id(weight) for name, weight in model.named_parameters()} == {
        name: id(weight) for name, weight in parameters.items()
    }
    ours = loss.target_loss(model, batch)
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-6)
    actual = gradients(model)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-4)
    drop_thin_products(model)
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, LoraLayer))


def test_no_logits_of_all_targets_are_whole(monkeypatch) -> None:
    monkeypatch.setattr(loss, "LARGEST_CHUNK", 104 * 7)
    model, batch = prepared(tiny_base())
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            weights = func.overloadpacket is torch.ops.aten.t
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (104,) and not weights:
                seen.append(out.numel() // 104)
            return out

    with Watch():
        loss.target_loss(model, batch).backward()
    assert len(batch["targets"]) > 50
    assert max(seen) == 7


# What a family does to its logits before or behind the head, small enough that it hardly shows in random models.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "quirk"),
    [
        ("cohere", {"logit_scale": 0.05}),
        ("cohere", {"logit_scale": 1.02}),
        ("granite", {"logits_scaling": 1.01}),
        ("gemma2", {"final_logit_softcapping": 30.0}),
        ("gemma3_text", {"final_logit_softcapping": 30.0}),
    ],
)
def test_a_family_that_changes_its_logits_is_noticed(family: str, quirk: dict, dtype: torch.dtype) -> None:
    assert not agrees(random_base(family, dtype, **quirk))


def test_a_family_that_scales_what_its_head_gets_is_noticed() -> None:
    base = tiny_base()
    base.model.lm_head.register_forward_pre_hook(lambda head, given: (given[0] / 1.01,))
    assert not agrees(base)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_deep_model_in_bf16_is_not_taken_for_one_that_does(family: str) -> None:
    """Thirty layers with weights of a real size: two passes that lay the rows differently are percents apart there."""
    plain = {"final_logit_softcapping": None} if family == "gemma2" else {}
    assert agrees(random_base(family, torch.bfloat16, num_hidden_layers=30, initializer_range=0.3, **plain))


def test_of_a_broken_base_nothing_false_is_said() -> None:
    base = tiny_base()
    with torch.no_grad():
        base.model.lm_head.weight[3] = torch.nan
    assert agrees(base)


def random_base(family: str, dtype: torch.dtype, **quirks: object) -> Base:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **GLM | {"bos_token_id": 2, "eos_token_id": 3} | quirks)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    return Base(model, tiny_tokenizer(), Family(family, family), "tiny", torch.device("cpu"), dtype)


def agrees(base: Base) -> bool:
    model, _ = prepared(base)
    return loss.agrees_with_model(model, render_rows(base, rows(1), TrainingSettings())[0])
