"""Official int4 and int8 folders: read as they are, and computing what the same numbers in full precision do."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModelForCausalLM
from torch import nn

from glmstudio.errors import StudioError
from glmstudio.models.loading import load_base
from glmstudio.models.quantisation import quantised
from glmstudio.models.resident import Resident, lora_targets
from glmstudio.settings import LoraSettings
from tests.quantised_folders import quantised as formula
from tests.quantised_folders import quantised_folder, two_in_a_byte
from tests.unit.golden_cases import CHATGLM, CHATGLM2, CHATGLM3, cases, inputs_of, names, valid_rows

SOURCES = {"chatglm": CHATGLM, "chatglm2": CHATGLM2, "chatglm3": CHATGLM3}
FOLDERS = list(itertools.product(SOURCES, (4, 8)))


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda pair: f"{pair[0]}-int{pair[1]}")
def pair(request, tmp_path_factory):
    """(source, base on packed weights, base on the same numbers in float32)."""
    family, bits = request.param
    folders = quantised_folder(SOURCES[family], tmp_path_factory.mktemp(family), bits)
    packed, full = (load_base(folder, device="cpu", dtype="float32") for folder in folders)
    return SOURCES[family], packed, full


def test_the_base_says_what_it_is(pair):
    source, packed, full = pair
    bits = packed.quantization
    assert bits in ("4bit", "8bit")
    assert full.quantization == "none"
    assert packed.family is full.family
    linear = {name for name, layer in packed.model.named_modules() if isinstance(layer, quantised.PackedLinear)}
    layers = packed.model.config.num_hidden_layers
    assert len(linear) == layers * (4 if source == CHATGLM else 6)
    # The official names and the packed form, as a folder has them.
    state = packed.model.state_dict()
    for name in linear:
        assert state[f"{name}.weight"].dtype == torch.int8
        assert state[f"{name}.weight_scale"].dtype == torch.float16


def test_logits_are_those_of_the_full_numbers(pair):
    source, packed, full = pair
    for name in names("forward", source):
        case = cases(source)[name]
        with torch.no_grad():
            here, there = (base.model(**inputs_of(case)).logits[valid_rows(case)] for base in (packed, full))
        assert (here - there).abs().max() < 1e-5
        assert here.abs().max() > 1


def test_answers_are_those_of_the_full_numbers(pair):
    source, packed, full = pair
    ids = torch.tensor(cases(source)[names("generate", source)[0]]["input_ids"])
    here, there = (base.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False) for base in (packed, full))
    assert here.tolist() == there.tolist()


def test_lora_gets_the_gradients_of_the_full_numbers(pair):
    source, packed, full = pair
    case = cases(source)[names("train", source)[0]]
    found = []
    for base in (packed, full):
        targets = lora_targets(base, LoraSettings())
        torch.manual_seed(3)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
        model = PeftModelForCausalLM(base.model.requires_grad_(False), config)
        model(**inputs_of(case), labels=torch.tensor(case["labels"])).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if ".lora_" in name})
        model.unload()
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0].values())


def test_nothing_of_the_full_matrix_is_kept_for_the_way_back(pair):
    _, packed, _ = pair
    kept = []
    layer = next(module for module in packed.model.modules() if isinstance(module, quantised.PackedLinear))
    inputs = torch.randn(2, layer.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        layer(inputs)
    assert sum(value.nbytes for value in kept) == layer.weight.nbytes + layer.weight_scale.nbytes


def test_the_memory_is_that_of_the_packed_form(pair):
    _, packed, full = pair
    sizes = [Resident(base).weight_bytes for base in (packed, full)]
    linear = [layer for layer in packed.model.modules() if isinstance(layer, quantised.PackedLinear)]
    numbers = sum(layer.in_features * layer.out_features for layer in linear)
    rows = sum(layer.out_features for layer in linear)
    share = {"4bit": 0.5, "8bit": 1}[packed.quantization]
    assert sizes[1] - sizes[0] == numbers * (4 - share) - 2 * rows
    assert Resident(packed).parameters == Resident(full).parameters


def test_bytes_become_signed_halves():
    halves = list(itertools.product(range(-8, 8), repeat=2))
    packed = torch.tensor([[((first % 16) * 16 + second % 16 + 128) % 256 - 128 for first, second in halves]])
    assert quantised.unpacked(packed.to(torch.int8)).view(-1, 2).tolist() == [list(pair) for pair in halves]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_computes_near_the_full_numbers(tmp_path, dtype):
    packed, full = quantised_folder(CHATGLM, tmp_path, 8)
    ids = torch.tensor(cases()["b1_gmask"]["input_ids"])
    with torch.no_grad():
        here, there = (
            load_base(folder, device="cpu", dtype=kind).model(input_ids=ids).logits.float()
            for folder, kind in ((packed, dtype), (full, "fp32"))
        )
    assert 0 < (here - there).pow(2).mean().sqrt() < 0.02 * there.pow(2).mean().sqrt()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("columns", "rows"), [(64, 48), (38, 7), (96, 7)])
def test_the_steps_of_an_answer_compute_the_same(monkeypatch, bits, columns, rows):
    """bfloat16 on the CPU has a product of its own for few rows, where nothing learns."""
    torch.manual_seed(0)
    layer = quantised.PackedLinear(columns, rows, bits, bias=True)
    values, scale = formula(torch.randn(rows, columns), bits)
    layer.weight = nn.Parameter(two_in_a_byte(values) if bits == 4 else values.to(torch.int8), requires_grad=False)
    layer.weight_scale, layer.bias = scale, nn.Parameter(torch.randn(rows).bfloat16(), requires_grad=False)
    inputs = torch.randn(2, 5, columns).bfloat16()
    few = layer(inputs)
    learnt = layer(inputs.clone().requires_grad_(True)).detach()
    monkeypatch.setattr(quantised, "FEW_ROWS", 9)
    many = layer(inputs)
    assert torch.equal(many, learnt)
    assert few.shape == many.shape == (2, 5, rows)
    full = nn.functional.linear(inputs.float(), values * scale.float()[:, None], layer.bias.float())
    for product in (few, many):
        assert (product.float() - full).norm() < 0.01 * full.norm()


def refusal(folder: Path, **wish: str) -> StudioError:
    with pytest.raises(StudioError) as caught:
        load_base(folder, device="cpu", dtype="float32", **wish)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({"quantization_bit": 4, "quantization_embeddings": True}, "quantization_embeddings"),
        ({"quantization_bit": 2}, "2 bit"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ],
)
def test_forms_that_are_not_read_are_named(tmp_path, changes, form):
    folder, _ = quantised_folder(CHATGLM, tmp_path, 4)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    error = refusal(folder)
    assert (error.code, error.params["form"]) == ("base-quantized", form)


@pytest.mark.parametrize("family", ["chatglm", "chatglm2"])
def test_weights_that_are_not_what_the_config_says(tmp_path, family):
    packed, full = quantised_folder(SOURCES[family], tmp_path, 4)
    (full / "config.json").write_text((packed / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    error = refusal(full)
    assert error.code == "tensor-shape"
    assert "float32" in error.params["actual"]


def test_stored_bits_are_not_turned_into_others(tmp_path):
    folder, _ = quantised_folder(CHATGLM, tmp_path, 4)
    assert load_base(folder, device="cpu", dtype="fp32", quantization="4bit").quantization == "4bit"
    error = refusal(folder, quantization="8bit")
    assert (error.code, error.params["stored"], error.params["quantization"]) == ("quantization-stored", "4bit", "8bit")
