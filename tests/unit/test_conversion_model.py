"""ChatGLM2, ChatGLM3 and GLM-4 as GlmForCausalLM against the original code's numbers."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import GlmForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.conversion import GlmNames, glm_config
from glmstudio.models.families.table import FAMILIES, family_of
from glmstudio.models.loading import load_base
from tests.unit.golden_cases import (
    CHATGLM2,
    CHATGLM3,
    GLM_4,
    assert_close,
    assert_forward,
    assert_generates,
    assert_trains,
    cases,
    inputs_of,
    names,
    tensor,
    valid_rows,
)

SETS = {"chatglm2": CHATGLM2, "chatglm3": CHATGLM3, "glm-4": GLM_4}


def every(kind: str) -> list:
    return [
        pytest.param(folder, case, id=f"{family}-{case}")
        for family, folder in SETS.items()
        for case in names(kind, folder)
    ]


@cache
def _model(folder: Path) -> GlmForCausalLM:
    return load_base(folder, device="cpu", dtype="float32").model


@pytest.fixture(params=["sdpa", "eager"])
def model_of(request):
    def loaded(folder: Path) -> GlmForCausalLM:
        model = _model(folder)
        model.set_attn_implementation(request.param)
        return model

    return loaded


@pytest.mark.parametrize(("folder", "name"), every("forward"))
def test_logits_are_the_originals(model_of, folder, name):
    assert_forward(model_of(folder), cases(folder)[name])


@pytest.mark.parametrize(("folder", "name"), every("train"))
def test_loss_and_gradients_are_the_originals(model_of, folder, name):
    assert_trains(model_of(folder), cases(folder)[name])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(("folder", "name"), every("generate"))
def test_greedy_answers_are_the_originals(model_of, folder, name, use_cache):
    assert_generates(model_of(folder), cases(folder)[name], use_cache=use_cache)


@pytest.mark.parametrize("folder", [CHATGLM2, CHATGLM3])
@pytest.mark.parametrize("name", ["b1_prompt_target", "batch_leftpad"])
def test_hidden_states_and_cache_are_the_originals(model_of, folder, name):
    model, case = model_of(folder), cases(folder)[name]
    keep = valid_rows(case)
    with torch.no_grad():
        output = model(**inputs_of(case), output_hidden_states=True)
        stored = [tensor(state, folder).transpose(0, 1)[keep] for state in case["hidden_states"]]
        # The original shows the last state before the final norm, transformers after it.
        stored[-1] = model.model.norm(stored[-1])
    for actual, expected in zip(output.hidden_states, stored, strict=True):
        assert_close(actual[keep], expected)
    layer = output.past_key_values.layers[0]
    for actual, key in ((layer.keys, "past_key_0"), (layer.values, "past_value_0")):
        assert_close(actual.transpose(1, 2)[keep], tensor(case[key], folder).transpose(0, 1)[keep])


def test_every_set_has_its_family_and_its_ends():
    for (name, folder), end in zip(SETS.items(), (2, 2, [401, 408, 410]), strict=True):
        base = load_base(folder, device="cpu", dtype="float32")
        assert base.family is FAMILIES[name]
        assert base.family.converted
        assert isinstance(base.model, GlmForCausalLM)
        assert base.tokenizer is None
        assert base.model.generation_config.eos_token_id == end
        assert base.model.generation_config.repetition_penalty in (None, 1.0)
        assert not base.model.training


@pytest.mark.parametrize("folder", SETS.values(), ids=SETS)
def test_a_base_does_not_hang_on_its_files(folder, tmp_path):
    for file in (folder / "config.json", *folder.glob("pytorch_model*")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load_base(tmp_path, device="cpu", dtype="float32").model
    for shard in tmp_path.glob("*.bin"):
        shard.write_bytes(b"\0" * shard.stat().st_size)
    assert_forward(model, cases(folder)["b1_prompt"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("folder", SETS.values(), ids=SETS)
def test_half_precision_turns_by_exact_angles(folder, dtype):
    base = load_base(folder, device="cpu", dtype=str(dtype).removeprefix("torch."))
    assert {parameter.dtype for parameter in base.model.parameters()} == {dtype}
    rotary = base.model.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32
    case = cases(folder)["b1_prompt"]
    with torch.no_grad():
        logits = base.model(tensor(case["input_ids"])).logits
    exact = tensor(case["logits"], folder)
    assert (logits.float() - exact).pow(2).mean().sqrt() < 0.1 * exact.pow(2).mean().sqrt()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kv_channels": ...}, "kv_channels"),
        ({"num_layers": "x"}, "num_hidden_layers"),
        ({"rmsnorm": False}, "rmsnorm"),
        ({"add_bias_linear": True}, "add_bias_linear"),
    ],
)
def test_a_config_that_describes_no_such_model(tmp_path, changes, word):
    for file in CHATGLM3.glob("pytorch_model*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(_config(CHATGLM3, **changes)), encoding="utf-8")
    with pytest.raises(StudioError) as caught:
        load_base(tmp_path, device="cpu", dtype="float32")
    assert caught.value.code == "config-unfit"
    assert word in caught.value.params["reason"]


def test_names_go_there_and_back():
    model = _model(CHATGLM2)
    table = GlmNames.of(model.config)
    for name, parameter in model.named_parameters():
        module, _, _ = name.rpartition(".")
        official = table.official(module)
        rows = table.native(official)[module]
        if "_proj" in module and module[-6] in "qkv":
            assert official.endswith("self_attention.query_key_value")
            assert rows.stop - rows.start == len(parameter)
        else:
            assert (rows, len(table.native(official))) == (slice(None), 1)
    fused = "transformer.encoder.layers.7.self_attention.query_key_value"
    assert table.native(fused) == {
        "model.layers.7.self_attn.q_proj": slice(0, 64),
        "model.layers.7.self_attn.k_proj": slice(64, 96),
        "model.layers.7.self_attn.v_proj": slice(96, 128),
    }
    assert table.native("transformer.layers.0.attention.dense") == {}
    assert table.official("model.layers.0.mlp.gate_proj") is None
    assert table.official("model.embed") is None


def _config(folder: Path, **changes) -> dict:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    return {key: value for key, value in values.items() if value is not ...}


def test_longer_contexts_turn_the_angles_as_each_generation_does():
    for name, folder, expected in (
        ("chatglm2", CHATGLM2, {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}),
        ("chatglm3", CHATGLM3, {"rope_type": "default", "rope_theta": 80000.0}),
        ("glm-4", GLM_4, {"rope_type": "default", "rope_theta": 80000.0}),
    ):
        config = glm_config(_config(folder, rope_ratio=8), FAMILIES[name])
        assert config.rope_parameters == expected | {"partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("folder", "changes", "family"),
    [
        (CHATGLM2, {"_name_or_path": ...}, "chatglm2"),
        (CHATGLM3, {"_name_or_path": ...}, "chatglm3"),
        (CHATGLM2, {"_name_or_path": "/models/chatglm3-6b-32k", "rope_ratio": 50}, "chatglm3"),
        (CHATGLM3, {"transformers_version": "4.41.0", "_name_or_path": "./out"}, "chatglm3"),
        (CHATGLM2, {"padded_vocab_size": 151552}, "glm-4"),
        (CHATGLM2, {"eos_token_id": [151329, 151336, 151338]}, "glm-4"),
    ],
)
def test_families_are_told_apart_by_the_config(folder, changes, family):
    assert family_of(_config(folder, **changes), "anywhere").name == family


def test_the_name_of_the_folder_decides_where_the_config_says_nothing():
    silent = _config(CHATGLM3, _name_or_path=..., transformers_version=...)
    assert family_of(silent, "/models/chatglm2-6b").name == "chatglm2"
    assert family_of(silent, "/models/mine").name == "chatglm3"


def test_a_converted_folder_keeps_its_family():
    assert family_of({"model_type": "glm", "glmstudio_family": "chatglm2"}, "x") is FAMILIES["chatglm2"]
    assert family_of({"model_type": "glm"}, "x") is FAMILIES["glm"]
    with pytest.raises(StudioError, match="unsupported-family"):
        family_of({"model_type": "chatglm3"}, "x")
