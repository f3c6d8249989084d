"""P-Tuning v2 on ChatGLM-6B, ChatGLM2 and ChatGLM3 against the original code's numbers, and on other causal models."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.adapters.prefix import PrefixEncoder, PrefixModel, PrefixShape
from glmstudio.models.adapters.prefix_files import load_prefix, write_prefix
from glmstudio.models.base import Base
from glmstudio.models.chatglm.weights import load_chatglm
from glmstudio.models.loading import load_base
from tests.quantised_folders import quantised_folder
from tests.tiny_families import QUIRKS, native_folder
from tests.unit.golden_cases import (
    CHATGLM,
    CHATGLM2,
    CHATGLM3,
    assert_close,
    assert_forward,
    assert_generates,
    assert_trains,
    cases,
    names,
    tensor,
    valid_rows,
)

# What some keep of a token is no key and value, and a sliding window would lose the prefix.
REFUSED = ("gemma3_text", "glm4_moe_lite", "glm_moe_dsa")
SETS = pytest.mark.parametrize("golden", [CHATGLM, CHATGLM2, CHATGLM3], ids=lambda folder: folder.name)


def base_of(folder: Path, dtype: str = "float32") -> Base:
    return load_base(folder, device="cpu", dtype=dtype)


def fresh(base: Base, pre_seq_len: int = 5, *, projection: bool = False) -> PrefixModel:
    torch.manual_seed(3)
    shape = PrefixShape.of(base.model.config, base.source)
    return PrefixModel(base, PrefixEncoder(shape, pre_seq_len, projection)).eval()


@SETS
@pytest.mark.parametrize("folder", ["ptuning", "ptuning_projection"])
def test_the_originals_logits_gradients_and_answers(golden: Path, folder: str) -> None:
    model = load_adapter(base_of(golden), golden / folder)
    assert {name.rpartition(".")[0].removeprefix("transformer.") for name, _ in model.named_parameters()} == (
        {"prefix_encoder.embedding"}
        if folder == "ptuning"
        else {"prefix_encoder.embedding", "prefix_encoder.trans.0", "prefix_encoder.trans.2"}
    )
    found = {kind: names(kind, golden, ptuning=folder) for kind in ("forward", "train", "generate")}
    for name in found["forward"]:
        case = cases(golden)[name]
        assert_forward(model, case)
        if "valid" in case and golden is CHATGLM:
            assert_forward(model, case | {"attention_mask": valid_rows(case).long().tolist(), "position_ids": None})
    for name in found["train"]:
        assert_trains(model, cases(golden)[name])
    for name in found["generate"]:
        assert_generates(model, cases(golden)[name])
        assert_generates(model, cases(golden)[name], use_cache=False)
    assert found["forward"]
    assert (len(found["train"]), len(found["generate"])) == ((1, 1) if folder == "ptuning" else (0, 0))


@SETS
def test_answers_are_alike_in_a_padded_batch_and_without_cache(golden: Path) -> None:
    model = load_adapter(base_of(golden), golden / "ptuning")
    case = cases(golden)["gen_batch_leftpad"]
    ids = tensor(case["input_ids"])
    mask = (ids != case["pad"]).long()
    wish = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": case["pad"], "eos_token_id": []}
    together = model.generate(input_ids=ids, attention_mask=mask, **wish)
    assert torch.equal(model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **wish), together)
    for row, kept in enumerate(mask.bool()):
        assert torch.equal(model.generate(input_ids=ids[row, kept][None], **wish)[0, -8:], together[row, -8:])


@SETS
def test_a_cache_may_be_filled_token_by_token(golden: Path) -> None:
    model = load_adapter(base_of(golden), golden / "ptuning")
    ids = tensor(cases(golden)[names("forward", golden, ptuning="ptuning")[0]]["input_ids"])
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :-2], use_cache=True)
        cache = first.past_key_values
        steps = [model(ids[:, place : place + 1], past_key_values=cache).logits for place in (-2, ids.shape[1] - 1)]
    torch.testing.assert_close(torch.cat((first.logits, *steps), dim=1), whole, atol=2e-5, rtol=0)


@SETS
def test_gradient_checkpointing_changes_no_gradient(golden: Path) -> None:
    model = load_adapter(base_of(golden), golden / "ptuning_projection")
    case = cases(golden)["train_batch"] if "train_batch" in cases(golden) else cases(golden)["ptuning_train_batch"]
    inputs = {"input_ids": tensor(case["input_ids"]), "labels": tensor(case["labels"])}
    model.train()

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(5)
        with model.in_front():
            model(**inputs, use_cache=False).loss.backward()
        found = [weight.grad.clone() for weight in model.parameters()]
        model.zero_grad()
        return found

    plain = gradients()
    model.activation_checkpointing_enable()
    for saved, expected in zip(gradients(), plain, strict=True):
        assert expected.norm() > 0
        torch.testing.assert_close(saved, expected, atol=1e-6, rtol=1e-5)


def test_the_base_stays_as_it_was_and_may_carry_a_lora(tmp_path: Path) -> None:
    base, case = base_of(CHATGLM), cases()["b1_gmask_target"]
    ptuned = cases()["ptuning_b1_gmask_target"]
    modules, config = [type(module) for module in base.model.modules()], base.model.config.to_dict()
    model = load_adapter(base, CHATGLM / "ptuning")
    assert_forward(model, ptuned)
    assert_forward(base.model, case)
    assert [type(module) for module in base.model.modules()] == modules
    assert base.model.config.to_dict() == config
    tuned = load_adapter(base, CHATGLM / "lora_adapter")
    assert_forward(model, ptuned)
    assert_forward(tuned, cases()["lora_b1_gmask_target"])


def test_training_drops_out_keys_and_values_row_by_row() -> None:
    base = base_of(CHATGLM)
    model = fresh(base)
    states = model.train().prefix_encoder(2, torch.float32)
    assert 0.05 < (states == 0).float().mean() < 0.15
    assert not torch.equal(states[:, :, 0], states[:, :, 1])
    assert base.model.training
    states = model.eval().prefix_encoder(2, torch.float32)
    assert torch.equal(states[:, :, 0], states[:, :, 1])
    assert not (states == 0).any()
    assert not base.model.training


@pytest.mark.parametrize("model_type", [name for name in QUIRKS if name not in REFUSED])
def test_a_prefix_is_a_cache_whose_tokens_take_no_position_in_every_family(model_type: str, tmp_path: Path) -> None:
    base = base_of(native_folder(model_type, tmp_path / "base"))
    model = fresh(base, projection=model_type == "qwen3")
    ids = torch.arange(20, 34)[None].repeat(2, 1)
    ids[1, :3] = 0
    mask = (ids != 0).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
        alone = model(ids[1:, 3:]).logits
        plain = base.model(ids, attention_mask=mask, position_ids=positions).logits
        cache = DynamicCache(config=base.model.config)
        for layer, (keys, values) in enumerate(model.prefix_encoder(2, torch.float32)):
            cache.update(keys, values, layer)
        wide = torch.cat((torch.ones(2, 5, dtype=torch.long), mask), dim=1)
        cached = base.model(ids, attention_mask=wide, position_ids=positions, past_key_values=cache).logits
    torch.testing.assert_close(logits[mask.bool()], cached[mask.bool()], atol=2e-5, rtol=0)
    torch.testing.assert_close(logits[1:, 3:], alone, atol=2e-5, rtol=0)
    assert (logits - plain)[:, 3:].abs().amax(-1).min() > 1e-4
    wish = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": []}
    together = model.generate(input_ids=ids, attention_mask=mask, **wish)
    assert torch.equal(model.generate(input_ids=ids[1:, 3:], **wish)[0, -6:], together[1, -6:])
    write_prefix(model, tmp_path)
    with torch.no_grad():
        again = load_adapter(base, tmp_path)(ids, attention_mask=mask, position_ids=positions).logits
    assert torch.equal(again, logits)


@pytest.mark.parametrize("family", REFUSED)
def test_a_cache_of_another_kind_is_refused(family: str, tmp_path: Path) -> None:
    base = base_of(native_folder(family, tmp_path))
    with pytest.raises(StudioError) as caught:
        fresh(base)
    assert (caught.value.code, caught.value.params) == (
        "ptuning-family",
        {"family": family, "source": str(tmp_path)},
    )


@SETS
@pytest.mark.parametrize("projection", [False, True])
def test_what_is_written_has_the_official_names_sizes_and_config(
    golden: Path, projection: bool, tmp_path: Path
) -> None:
    base = base_of(golden)
    write_prefix(fresh(base, 8, projection=projection), tmp_path)
    official = golden / ("ptuning_projection" if projection else "ptuning")
    ours, theirs = (torch.load(folder / "pytorch_model.bin") for folder in (tmp_path, official))
    assert {name: value.shape for name, value in ours.items()} == {name: v.shape for name, v in theirs.items()}
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    known = json.loads((official / "config.json").read_text(encoding="utf-8"))
    asked = ["num_layers", "hidden_size", "num_attention_heads", "pre_seq_len", "prefix_projection", "model_type"]
    asked += [] if golden is CHATGLM else ["kv_channels", "multi_query_group_num"]
    assert {name: written[name] for name in asked} == {name: known[name] for name in asked}
    assert written["_name_or_path"] == str(golden)


def test_a_bf16_base_keeps_its_prefix_in_float32(tmp_path: Path) -> None:
    base = base_of(CHATGLM2, "bfloat16")
    model = load_prefix(base, CHATGLM2 / "ptuning")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    case = cases(CHATGLM2)["ptuning_b1_prompt_target"]
    logits = model(tensor(case["input_ids"])).logits
    assert logits.dtype == torch.bfloat16
    assert_close(logits, tensor(case["logits"], CHATGLM2), worst=0.5, rms=0.1)


def test_safetensors_and_a_prefix_that_was_saved_with_its_base(tmp_path: Path) -> None:
    """Before the prefix was saved alone, folders held everything: such a one is base and adapter at once."""
    from safetensors.torch import save_file

    base = base_of(CHATGLM)
    folder = tmp_path / "whole"
    shutil.copytree(CHATGLM / "ptuning", folder)
    prefix = torch.load(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").unlink()
    state = {name: value.contiguous() for name, value in base.model.state_dict().items() if name != "lm_head.weight"}
    save_file(state | prefix, folder / "model.safetensors")
    assert_forward(load_adapter(base, folder), cases()["ptuning_b1_gmask_target"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = load_chatglm(folder, config, base.device, base.dtype).eval()
    assert model.config.pre_seq_len == 8
    assert_forward(model, cases()["b1_gmask_target"])
    whole = dataclasses.replace(base, model=model)
    assert_forward(load_adapter(whole, folder), cases()["ptuning_b1_gmask_target"])


@pytest.mark.parametrize("damage", ["length", "another base", "no weights of a prefix"])
def test_a_prefix_that_does_not_fit_is_told(damage: str, tmp_path: Path) -> None:
    base, folder = base_of(CHATGLM), tmp_path / "adapter"
    shutil.copytree((CHATGLM2 if damage == "another base" else CHATGLM) / "ptuning", folder)
    if damage == "length":
        text = (folder / "config.json").read_text(encoding="utf-8")
        (folder / "config.json").write_text(text.replace('"pre_seq_len": 8', '"pre_seq_len": 4'), encoding="utf-8")
    elif damage == "no weights of a prefix":
        torch.save({"other": torch.zeros(2)}, folder / "pytorch_model.bin")
    with pytest.raises(StudioError) as caught:
        load_adapter(base, folder)
    code = "adapter-other-family" if damage == "another base" else "adapter-unfit"
    assert (caught.value.code, caught.value.params["folder"]) == (code, str(folder))
    assert_forward(base.model, cases()["b1_gmask_target"])


@SETS
def test_a_prefix_on_packed_weights_gets_the_gradients_of_the_full_numbers(golden: Path, tmp_path: Path) -> None:
    """The original P-Tuning trained on the int4 form."""
    case = cases(golden)["ptuning_train_batch"]
    found = []
    for folder in quantised_folder(golden, tmp_path, 4):
        base = base_of(folder)
        model = load_adapter(base, golden / "ptuning_projection")
        base.model.requires_grad_(False)
        model(tensor(case["input_ids"]), labels=tensor(case["labels"])).loss.backward()
        found.append([weight.grad for weight in model.parameters()])
    for packed, full in zip(*found, strict=True):
        assert full.norm() > 0
        torch.testing.assert_close(packed, full, atol=1e-5, rtol=1e-4)
