"""Adapters of every kind that PEFT makes: each answers beside the base as PEFT answers with it alone, or is refused."""

import dataclasses
import json
from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from glmstudio.errors import StudioError
from glmstudio.inference.engine import answers
from glmstudio.inference.rows import Row
from glmstudio.models.adapters.adapter_files import adapter_form, read_lora
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.chat_format import Rendered
from glmstudio.models.exporting.merging import merge_lora
from glmstudio.models.loading import load_base
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from glmstudio.training.loss import batch_form, target_loss
from tests.tiny_families import native_folder

PROMPTS = [[*range(7, 40)], [50, 51, 52, 9], [*range(60, 80)]]
GREEDY = GenerationSettings(max_new_tokens=8, repetition_stop=0)
QV = ["q_proj", "v_proj"]
RIGHT = {
    "plain": {"target_modules": QV},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*layers\.1\..*(q|v)_proj"},
    "rslora": {"target_modules": QV, "use_rslora": True},
    "dora": {"target_modules": [*QV, "embed_tokens"], "use_dora": True},
    "layers_to_transform": {"target_modules": QV, "layers_to_transform": [1]},
    "patterns": {"target_modules": QV, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 64}},
    "lora_bias": {"target_modules": QV, "lora_bias": True},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},
    "embed_tokens": {"target_modules": ["q_proj", "embed_tokens"]},
    "trainable_token_indices": {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [8, 9, 51]}},
    "saved head": {"target_modules": QV, "modules_to_save": ["lm_head", "embed_tokens"]},
    "saved norms": {"target_modules": QV, "modules_to_save": ["norm", "q_norm"]},
}
OTHER_METHODS = ["IA3", "LOHA", "LOKR", "ADALORA", "OFT", "VERA"]
OTHER_LORA = {"alora_invocation_tokens": [9, 9], "arrow_config": {"top_k": 1}, "use_qalora": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_folder("qwen3", tmp_path_factory.mktemp("base"))


def model_of(folder: Path) -> torch.nn.Module:
    # Without ends every answer has its full length.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def adapter(folder: Path, path: Path, config: peft.PeftConfig, seed: int = 3) -> Path:
    torch.manual_seed(seed)
    model = get_peft_model(model_of(folder), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight += torch.randn_like(weight) * (0.05 if "embedding" in name or "token_adapter" in name else 0.3)
    model.save_pretrained(path)
    return path


def lora(folder: Path, path: Path, *, seed: int = 3, **config: object) -> Path:
    return adapter(folder, path, LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", **config), seed)


def generated(model: torch.nn.Module, ids: list[int]) -> list[int]:
    inputs = torch.tensor([ids])
    count = GREEDY.max_new_tokens
    out = model.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=count, do_sample=False
    )
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("kind", RIGHT)
def test_it_answers_beside_others_as_peft_does_alone(kind: str, folder: Path, tmp_path: Path) -> None:
    folders = {
        "odd": lora(folder, tmp_path / "odd", **RIGHT[kind]),
        "plain": lora(folder, tmp_path / "plain", seed=4, target_modules=["v_proj", "down_proj"]),
    }
    base = load_base(folder, device="cpu", dtype="fp32")
    base.model.generation_config.eos_token_id = None
    resident = Resident(dataclasses.replace(base, tokenizer=None))
    expected = {BASE_NAME: [generated(model_of(folder), ids) for ids in PROMPTS]}
    for name, path in folders.items():
        resident.load(name, path)
        tuned = PeftModel.from_pretrained(model_of(folder), str(path)).eval()
        expected[name] = [generated(tuned, ids) for ids in PROMPTS]
    assert expected["odd"] != expected[BASE_NAME] != expected["plain"]
    for names in ([BASE_NAME, "odd", "plain"], ["odd", "plain", BASE_NAME]):
        rows = [Row(ids, name) for ids in PROMPTS for name in names]
        said = {
            answer.number: answer.ids
            for answer in answers(resident, rows, GREEDY, max_rows=5, should_stop=lambda: False)
        }
        wanted = [expected[name][place] for place in range(len(PROMPTS)) for name in names]
        assert [said[number] for number in range(len(rows))] == wanted


@pytest.mark.parametrize("kind", ["dora", "lm_head", "embed_tokens", "trainable_token_indices", "saved head"])
def test_a_run_sees_nothing_of_it(kind: str, folder: Path, tmp_path: Path) -> None:
    path = lora(folder, tmp_path / "odd", **RIGHT[kind])
    resident = Resident(load_base(folder, device="cpu", dtype="fp32"))
    row = Rendered(PROMPTS[0], [False] * 20 + [True] * 13, 20)

    def taught(*, during: bool) -> tuple[float, list[str]]:
        torch.manual_seed(5)
        with resident.gate.turn():
            model = resident.begin_training(LoraSettings(r=4))
            if during:
                with resident.gate.away():
                    resident.load("odd", path)
            loss = target_loss(model, batch_form(model)([row]))
            loss.backward()
            model.save_pretrained(tmp_path / "run", selected_adapters=["default"], save_embedding_layers=False)
            resident.end_training()
        return loss.item(), [*load_file(tmp_path / "run" / "adapter_model.safetensors")]

    alone = taught(during=False)
    assert taught(during=True) == alone
    assert taught(during=False) == alone
    resident._drop("odd")
    assert not any("lora" in name or "modules_to_save" in name for name, _ in resident.base.model.named_modules())


def refusal(folder: Path, path: Path) -> StudioError:
    resident = Resident(load_base(folder, device="cpu", dtype="fp32"))
    with pytest.raises(StudioError) as told:
        resident.load("odd", path)
    assert not any("lora" in name for name, _ in resident.base.model.named_modules())
    return told.value


def test_what_cannot_answer_beside_others_is_named(folder: Path, tmp_path: Path) -> None:
    told = refusal(folder, lora(folder, tmp_path / "odd", target_modules=["up_proj"], modules_to_save=["self_attn"]))
    assert (told.code, told.params["setting"]) == ("adapter-alone", "modules_to_save: self_attn")


def test_other_methods_of_peft_are_named(folder: Path, tmp_path: Path) -> None:
    path = lora(folder, tmp_path / "odd", target_modules=QV)
    config = json.loads((path / "adapter_config.json").read_text())
    others = [{"peft_type": kind} for kind in OTHER_METHODS] + [{name: value} for name, value in OTHER_LORA.items()]
    kinds = OTHER_METHODS + [f"LoRA + {name}" for name in OTHER_LORA]
    for other, kind in zip(others, kinds, strict=True):
        (path / "adapter_config.json").write_text(json.dumps(config | other))
        with pytest.raises(StudioError) as told:
            read_lora(adapter_form(path))
        assert (told.value.code, told.value.params["kind"]) == ("adapter-kind", kind)


@pytest.mark.parametrize(
    ("config", "tensor"),
    [
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "lm_head.weight"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.lora_B.weight"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "model.embed_tokens.lora_embedding_A"),
    ],
)
def test_another_vocabulary_is_told_as_one(config: dict, tensor: str, folder: Path, tmp_path: Path) -> None:
    bigger = model_of(folder)
    bigger.resize_token_embeddings(bigger.config.vocab_size + 4, mean_resizing=False)
    bigger.save_pretrained(tmp_path / "bigger")
    told = refusal(folder, lora(tmp_path / "bigger", tmp_path / "odd", **{"target_modules": QV, **config}))
    assert (told.code, told.params["tensor"]) == ("adapter-vocabulary", f"base_model.model.{tensor}")


def test_a_bias_that_has_no_place_is_not_merged(folder: Path, tmp_path: Path) -> None:
    path = lora(folder, tmp_path / "odd", target_modules=QV, lora_bias=True)
    with pytest.raises(StudioError) as told:
        merge_lora(load_adapter(load_base(folder, device="cpu", dtype="fp32"), path), torch.float32)
    assert (told.value.code, told.value.params["layer"]) == ("merge-lora-bias", "model.layers.0.self_attn.q_proj")
