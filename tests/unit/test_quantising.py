"""Loading a base in 8 and 4 bits: what it takes, how near its numbers stay, that it trains and answers."""

import json
import sys
import weakref
from pathlib import Path

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from torch import nn

from glmstudio.errors import StudioError
from glmstudio.models.chatglm.weights import load_chatglm
from glmstudio.models.loading import load_base
from glmstudio.models.processor import instructions
from glmstudio.models.quantisation import quantising
from glmstudio.models.quantisation.nf4 import Nf4Linear
from glmstudio.models.quantisation.quantised import plain_layers
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings
from tests.tiny_families import QUIRKS, native_folder
from tests.unit.golden_cases import CHATGLM, CHATGLM2

CPU = torch.device("cpu")
# Whether weights in 4 bits are turned round for answers on this processor.
TURNS = bool(has_avx512bf16()) and "avx512_bf16" in instructions()
# Of random weights in tiny layers; trained ones of real width stay nearer.
NEAR = {"8bit": 0.05, "4bit": 0.6}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made: dict[str, Path] = {"chatglm": CHATGLM, "chatglm2": CHATGLM2}

    def folder(family: str) -> Path:
        return made.get(family) or made.setdefault(family, native_folder(family, tmp_path_factory.mktemp(family)))

    return folder


def loaded(folder: Path, quantization: str, dtype: str = "fp32") -> Resident:
    return Resident(load_base(folder, device="cpu", dtype=dtype, quantization=quantization))


def logits_of(resident: Resident, names: list[str] | None = None) -> torch.Tensor:
    torch.manual_seed(5)
    ids = torch.randint(8, 300, (2, 12))
    return resident.forward(names or ["__base__"] * 2, input_ids=ids).logits.float()


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("family", ["chatglm", "chatglm2", *sorted(QUIRKS)])
def test_every_family_takes_less_and_stays_near(folder_of, family, quantization):
    full, small = (loaded(folder_of(family), kind) for kind in ("none", quantization))
    assert (full.base.quantization, small.base.quantization) == ("none", quantization)
    there, here = logits_of(full), logits_of(small)
    assert 0 < (here - there).norm() < NEAR[quantization] * there.norm()
    assert small.parameters == full.parameters
    model = small.base.model
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [layer.weight.is_floating_point() for layer in linear].count(True) == 1
    assert model.get_output_embeddings().weight.is_floating_point()
    numbers = sum(layer.in_features * layer.out_features for layer in linear if not layer.weight.is_floating_point())
    saved = full.weight_bytes - small.weight_bytes
    assert {"8bit": 2.8, "4bit": 3.3}[quantization] * numbers < saved < {"8bit": 3, "4bit": 3.5}[quantization] * numbers


def test_a_shard_is_quantised_before_the_next_one_comes():
    shrink, left = quantising.shrink_to("4bit", CPU, torch.float32), []

    def counted(model: nn.Module) -> None:
        shrink(model)
        layers = [model.get_submodule(path) for path in plain_layers(model)]
        left.append((len(layers), sum(not layer.weight.is_meta for layer in layers)))

    config = json.loads((CHATGLM / "config.json").read_text(encoding="utf-8"))
    load_chatglm(CHATGLM, config, CPU, torch.float32, counted)
    # One layer of twelve may lie in two shards.
    assert [arrived <= 1 for _, arrived in left] == [True, True]
    assert 0 < left[0][0] < 12
    assert left[1] == (0, 0)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("family", ["chatglm", "chatglm2", "qwen2"])
def test_rows_of_one_batch_go_through_different_adapters(folder_of, tmp_path, family, quantization):
    resident = loaded(folder_of(family), quantization)
    base = logits_of(resident)
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.3)
        model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"], save_embedding_layers=False)
        resident.end_training()
    resident.load("tuned", tmp_path / "adapter")
    mixed, tuned = logits_of(resident, ["__base__", "tuned"]), logits_of(resident, ["tuned"] * 2)
    torch.testing.assert_close(mixed[0], base[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1], tuned[1], atol=1e-5, rtol=0)
    assert (tuned - base).abs().max() > 0.1


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_full_weights_go_one_by_one(folder_of, monkeypatch, quantization):
    model = load_base(folder_of("llama"), device="cpu", dtype="fp32").model
    full = [weakref.ref(model.get_submodule(path).weight) for path in plain_layers(model)]
    alive, place = [], nn.Module.set_submodule

    def counted(self: nn.Module, path: str, module: nn.Module) -> None:
        alive.append(sum(weight() is not None for weight in full))
        place(self, path, module)

    monkeypatch.setattr(nn.Module, "set_submodule", counted)
    quantising.shrink_to(quantization, CPU, torch.float32)(model)
    # The one whose turn it is, and its follower.
    assert alive[0] == len(full) == 14
    assert alive[-1] <= 2


@pytest.mark.parametrize("bias", [True, False])
def test_int8_by_rows_is_the_official_form(bias):
    torch.manual_seed(0)
    layer = nn.Linear(40, 12, bias=bias)
    with torch.no_grad():
        layer.weight[3] = 0
    before = layer.weight.clone()
    packed = quantising.int8_rows(layer)
    scale = before.abs().amax(1) / 127
    values = packed.weight.float() * packed.weight_scale[:, None]
    assert packed.weight.abs().amax(1).tolist() == [0 if row == 3 else 127 for row in range(12)]
    assert ((values - before).abs() <= scale[:, None] / 2 * 1.001).all()
    inputs = torch.randn(5, 40)
    torch.testing.assert_close(packed(inputs), nn.functional.linear(inputs, values, layer.bias))
    assert torch.equal(layer.weight, before)


def test_llm_int8_stays_near_and_lets_gradients_through():
    """The layer that CUDA gets; the library has it on the CPU too."""
    torch.manual_seed(0)
    whole = torch.full((32, 64), 127, dtype=torch.int8)
    if torch._int_mm(whole, whole.t())[0, 0] != 64 * 127**2:
        pytest.skip("torch's product of int8, which only this layer uses on a CPU, overflows on this processor")
    layer = nn.Linear(64, 48)
    own = quantising.llm_int8(bitsandbytes, layer, CPU)
    assert (own.weight.dtype, own.weight.requires_grad, own.state.threshold) == (torch.int8, False, 6.0)
    inputs = torch.randn(7, 64)
    inputs[2, 5] = 40
    there = layer(inputs)
    assert 0 < (own.eval()(inputs) - there).norm() < 0.02 * there.norm()
    inputs.requires_grad_(True)
    own.train()(inputs).square().sum().backward()
    here = inputs.grad.clone()
    inputs.grad = None
    layer(inputs).square().sum().backward()
    assert 0 < (here - inputs.grad).norm() < 0.05 * inputs.grad.norm()


def layers_of(resident: Resident) -> list[Nf4Linear]:
    return [layer for layer in resident.base.model.modules() if isinstance(layer, Nf4Linear)]


def as_trained(resident: Resident) -> list[torch.Tensor]:
    """Bytes and scales of all 4-bit layers, none of them turned."""
    layers = layers_of(resident)
    assert not any(layer.turned for layer in layers)
    states = [layer.weight.quant_state for layer in layers]
    return [layer.weight.data.clone() for layer in layers] + [
        part.clone() for state in states for part in (state.absmax, state.offset, state.state2.absmax)
    ]


def test_the_fast_order_of_answers_is_left_for_training_and_comes_back(folder_of, tmp_path):
    resident = loaded(folder_of("chatglm"), "4bit", "bf16")
    before, layers = as_trained(resident), layers_of(resident)
    assert len(layers) == 12
    answer = logits_of(resident)
    assert [layer.turned for layer in layers] == [TURNS] * 12
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4)).train()
        assert all(map(torch.equal, as_trained(resident), before))
        ids = torch.tensor([[5, 6, 7]])
        model(input_ids=ids, labels=ids).loss.backward()
        found = [weight.grad for name, weight in model.named_parameters() if ".lora_B." in name]
        assert all(gradient is not None and gradient.abs().max() > 0 for gradient in found)
        # Others may ask between two steps: nothing is turned round under the run's feet.
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
        assert all(map(torch.equal, as_trained(resident), before))
        model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"], save_embedding_layers=False)
        resident.end_training()
    assert torch.equal(logits_of(resident), answer)
    # PEFT asks for the state of all layers while it loads: neither order nor scales change.
    resident.load("tuned", tmp_path / "adapter")
    assert [layer.turned for layer in layers] == [TURNS] * 12
    assert torch.equal(logits_of(resident), answer)
    with resident.gate.turn():
        resident.begin_training(LoraSettings(r=4))
        assert all(map(torch.equal, as_trained(resident), before))
        resident.end_training()


def test_the_state_of_a_layer_is_the_librarys_while_it_is_not_turned():
    layer = nn.Linear(64, 32).bfloat16()
    own = Nf4Linear(layer, CPU, torch.bfloat16).eval()
    whole = set(own.state_dict())
    assert {"weight", "bias", "weight.absmax", "weight.nested_absmax"} < whole
    own.prefer_answers(True)
    own(torch.ones(1, 64, dtype=torch.bfloat16))
    assert set(own.state_dict()) == ({"weight", "bias"} if TURNS else whole)
    own.prefer_answers(False)
    assert set(own.state_dict()) == whole


def refusal(folder: Path, device: torch.device, quantization: str) -> StudioError:
    with pytest.raises(StudioError) as caught:
        quantising.shrink_to(quantization, device, torch.float32)
    return caught.value


def test_what_cannot_be_is_said(monkeypatch, folder_of):
    with pytest.raises(StudioError, match="quantization-unknown"):
        load_base(CHATGLM, device="cpu", dtype="fp32", quantization="3bit")
    error = refusal(CHATGLM, torch.device("mps"), "4bit")
    assert (error.code, error.params["device"]) == ("quantization-device", "mps")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    error = refusal(CHATGLM, CPU, "4bit")
    assert (error.code, error.params["package"]) == ("quantization-missing", "bitsandbytes==0.50.2")
    assert loaded(CHATGLM, "8bit").base.quantization == "8bit"


def test_a_library_whose_compiled_part_is_of_no_use(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("Native code library not available.\nlong story")

    monkeypatch.setattr(bitsandbytes.nn.Params4bit, "to", broken)
    with pytest.raises(StudioError) as caught:
        load_base(CHATGLM, device="cpu", dtype="fp32", quantization="4bit")
    assert caught.value.code == "quantization-device"
    assert caught.value.params["reason"] == "Native code library not available."
