"""Adapters of 2023: `query_key_value` of ChatGLM2/3 on split layers, single files, and peft 0.2's parts of a layer."""

import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_files import adapter_form
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings
from tests.old_adapters import (
    IDS,
    OFFICIAL,
    base_of,
    changed_weights,
    deltas_of,
    fused,
    logits_of,
    random_lora,
    written,
)
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
)

SETS = pytest.mark.parametrize("golden", [CHATGLM2, CHATGLM3], ids=lambda folder: folder.name)


@SETS
def test_the_originals_numbers(golden):
    base = base_of(golden)
    model = load_adapter(base, golden / "lora_adapter", trainable=True)
    assert isinstance(model, PeftModel)
    assert model.active_adapters == ["default"]
    assert adapter_form(golden / "lora_adapter" / "adapter_model.bin").kind == "peft"
    assert not model.training
    for name in names("forward", golden, adapter=True):
        assert_forward(model, cases(golden)[name])
    for name in names("train", golden, adapter=True):
        assert_trains(model, cases(golden)[name])
    for name in names("generate", golden, adapter=True):
        assert_generates(model, cases(golden)[name])
    assert len(names("forward", golden, adapter=True) + names("train", golden, adapter=True)) == 2


@SETS
def test_training_goes_the_originals_way(golden):
    steps = cases(golden)["lora_train_steps"]
    batch = cases(golden)[steps["batch_from"]]
    model = load_adapter(base_of(golden), golden / "lora_adapter", trainable=True).train()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0)
    for expected in steps["losses"]:
        loss = model(input_ids=tensor(batch["input_ids"]), labels=tensor(batch["labels"])).loss
        # With an A of its own for each of q, k and v the second loss is already wrong.
        assert abs(loss.item() - expected) < 1e-4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, norm in steps["final_adapter_norms"].items():
        layer = name.split(".")[5]
        part = "lora_A" if "lora_A" in name else "lora_B"
        squares = [w.pow(2).sum() for key, w in trained.items() if f".layers.{layer}." in key and part in key]
        assert abs(sum(squares).sqrt().item() - norm) < 1e-4 * norm, name


def a_of(model, layer: int = 0, name: str = "default") -> list[torch.nn.Parameter]:
    attention = model.get_base_model().model.layers[layer].self_attn
    return [getattr(attention, part).lora_A[name].weight for part in ("q_proj", "k_proj", "v_proj")]


def test_the_shared_a_is_saved_three_times_and_shared_again_when_loaded(tmp_path):
    model = load_adapter(base_of(CHATGLM2), CHATGLM2 / "lora_adapter", trainable=True)
    assert len({id(weight) for weight in a_of(model)}) == 1
    with torch.no_grad():
        a_of(model)[0].mul_(1.5)
    expected = logits_of(model)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    q, k, v = (f"base_model.model.model.layers.1.self_attn.{part}_proj.lora_A.weight" for part in "qkv")
    assert torch.equal(stored[q], stored[k])
    assert torch.equal(stored[q], stored[v])
    again = load_adapter(base_of(CHATGLM2), tmp_path, trainable=True)
    assert len({id(weight) for weight in a_of(again)}) == 1
    assert torch.equal(logits_of(again), expected)
    assert torch.equal(logits_of(PeftModel.from_pretrained(base_of(CHATGLM2).model, tmp_path)), expected)


def test_merged_into_the_base_it_is_the_same_model():
    model = load_adapter(base_of(CHATGLM3), CHATGLM3 / "lora_adapter")
    expected = logits_of(model)
    assert_close(logits_of(model.merge_and_unload()), expected, worst=2e-5, rms=5e-6)


def test_several_old_adapters_answer_in_one_batch_while_another_trains(tmp_path):
    base = base_of(CHATGLM2)
    resident = Resident(base)
    sizes = {"self_attention.query_key_value": (128, 64)}
    other = written(tmp_path / "other", random_lora(sizes, range(3)), target_modules=["query_key_value"])
    with resident.gate.turn():
        training = resident.begin_training(LoraSettings(r=4))
    trainable = [name for name, weight in training.named_parameters() if weight.requires_grad]
    resident.load("golden", CHATGLM2 / "lora_adapter")
    resident.load("other", other)
    assert [name for name, weight in training.named_parameters() if weight.requires_grad] == trainable
    for name in ("golden", "other"):
        assert len({id(weight) for weight in a_of(training, name=name)}) == 1
    ids = IDS[:1].repeat(3, 1)
    mixed = resident.forward(["other", "__base__", "golden"], input_ids=ids).logits
    alone = [
        logits_of(load_adapter(base_of(CHATGLM2), other), ids[:1]),
        logits_of(base_of(CHATGLM2).model, ids[:1]),
        logits_of(load_adapter(base_of(CHATGLM2), CHATGLM2 / "lora_adapter"), ids[:1]),
    ]
    assert_close(mixed, torch.cat(alone), worst=2e-5, rms=5e-6)
    assert (mixed[0] - mixed[2]).abs().max() > 1
    with resident.gate.turn():
        resident.end_training()
    resident._drop("golden")
    assert_close(resident.forward(["other"], input_ids=ids[:1]).logits, mixed[:1], worst=2e-5, rms=5e-6)


def test_every_old_module_name_finds_its_layer(tmp_path):
    sizes = {
        "self_attention.query_key_value": (128, 64),
        "self_attention.dense": (64, 64),
        "mlp.dense_h_to_4h": (344, 64),
        "mlp.dense_4h_to_h": (64, 172),
    }
    state = random_lora(sizes, range(3))
    targets = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    model = load_adapter(base_of(CHATGLM2), written(tmp_path / "a", state, target_modules=targets))
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas_of(state, 6 / 2)))
    assert_close(logits_of(model), logits_of(changed.model), worst=5e-5, rms=1e-5)
    assert model.peft_config["default"].target_modules == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")
    }


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["query_key_value"], "layers_to_transform": [1, 2]},
        {"target_modules": r".*layers\.[12]\.self_attention\.query_key_value"},
        {"target_modules": [f"encoder.layers.{layer}.self_attention.query_key_value" for layer in (1, 2)]},
        {"target_modules": ["query_key_value"], "exclude_modules": r".*\.0\.self_attention.*"},
    ],
    ids=["indices", "pattern", "paths", "exclusion"],
)
def test_an_adapter_on_some_layers_stays_on_these(tmp_path, config):
    state = random_lora({"self_attention.query_key_value": (128, 64)}, range(1, 3))
    model = load_adapter(base_of(CHATGLM2), written(tmp_path / "a", state, **config))
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas_of(state, 6 / 2)))
    assert_close(logits_of(model), logits_of(changed.model), worst=5e-5, rms=1e-5)


def test_ranks_and_alphas_of_single_layers_are_kept(tmp_path):
    sizes = {"self_attention.query_key_value": (128, 64)}
    state = random_lora(sizes, range(2)) | random_lora(sizes, range(2, 3), rank=5)
    path = written(
        tmp_path / "a",
        state,
        target_modules=["query_key_value"],
        rank_pattern={"layers.2.self_attention.query_key_value": 5},
        alpha_pattern={r"encoder.layers.0.*query_key_value": 8},
    )
    deltas = deltas_of(state, 1.0)
    scales = {"0": 8 / 2, "1": 6 / 2, "2": 6 / 5}
    changed = {name: delta * scales[name.split(".")[3]] for name, delta in deltas.items()}
    expected = base_of(changed_weights(CHATGLM2, tmp_path / "changed", changed))
    assert_close(logits_of(load_adapter(base_of(CHATGLM2), path)), logits_of(expected.model), worst=5e-5, rms=1e-5)


def test_the_head_that_was_trained_beside_the_adapter_comes_too(tmp_path):
    state = random_lora({"self_attention.query_key_value": (128, 64)}, range(3))
    head = torch.randn(400, 64, generator=torch.Generator().manual_seed(5)) * 0.05
    state["base_model.model.transformer.output_layer.weight"] = head
    path = written(tmp_path / "a", state, target_modules=["query_key_value"], modules_to_save=["output_layer"])
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas_of(state, 6 / 2)))
    changed.model.lm_head.weight.data.copy_(head)
    expected = logits_of(changed.model)
    assert_close(logits_of(load_adapter(base_of(CHATGLM2), path)), expected, worst=5e-5, rms=1e-5)
    resident = Resident(base_of(CHATGLM2))
    resident.load("a", path)
    mixed = resident.forward(["__base__", "a"], input_ids=IDS).logits
    assert_close(mixed[1], expected[1], worst=5e-5, rms=1e-5)
    assert_close(mixed[0], logits_of(base_of(CHATGLM2).model)[0], worst=2e-5, rms=5e-6)
    resident._drop("a")
    assert torch.equal(resident.forward(["__base__"] * 2, input_ids=IDS).logits, logits_of(base_of(CHATGLM2).model))


def test_dora_is_cut_too_and_answers_beside_the_base(tmp_path):
    state = random_lora({"self_attention.query_key_value": (128, 64)}, range(3))
    scales = {}
    for layer in range(3):
        key = OFFICIAL.format(layer, "self_attention.query_key_value", "lora_magnitude_vector")
        state[key] = scales[layer] = torch.rand(128, generator=torch.Generator().manual_seed(layer)) + 0.5
    path = written(tmp_path / "a", state, target_modules=["query_key_value"], use_dora=True)
    base = base_of(CHATGLM2)
    deltas = deltas_of({name: value for name, value in state.items() if "magnitude" not in name}, 6 / 2)
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas))
    for layer in range(3):
        attention = changed.model.model.layers[layer].self_attn
        for part, rows in (("q_proj", slice(0, 64)), ("k_proj", slice(64, 96)), ("v_proj", slice(96, 128))):
            weight = getattr(attention, part).weight.data
            weight.mul_((scales[layer][rows] / weight.norm(dim=1))[:, None])
    resident, before, expected = Resident(base), logits_of(base.model), logits_of(changed.model)
    resident.load("a", path)
    mixed = resident.forward(["a", "__base__"], input_ids=IDS).logits
    assert_close(mixed[0], expected[0], worst=5e-5, rms=1e-5)
    assert torch.equal(mixed[1], before[1])
    assert_close(logits_of(load_adapter(base, path)), logits_of(changed.model), worst=5e-5, rms=1e-5)


def test_rank_stabilised_scaling_is_kept(tmp_path):
    path = written(tmp_path / "a", fused(), target_modules=["query_key_value"], use_rslora=True)
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas_of(fused(), 6 / 2**0.5)))
    assert_close(logits_of(load_adapter(base_of(CHATGLM2), path)), logits_of(changed.model))


def test_the_next_adapter_takes_the_place_of_the_one_before(tmp_path):
    base = base_of(CHATGLM2)
    wide = random_lora({"self_attention.dense": (64, 64)}, range(3))
    load_adapter(base, written(tmp_path / "a", wide, target_modules=["dense"]))
    assert_forward(load_adapter(base, CHATGLM2 / "lora_adapter"), cases(CHATGLM2)["lora_b1_prompt_target"])
    prefixed = names("forward", CHATGLM2, ptuning="ptuning")[0]
    assert_forward(load_adapter(base, CHATGLM2 / "ptuning"), cases(CHATGLM2)[prefixed])
    with pytest.raises(StudioError):
        load_adapter(base, tmp_path)
    with pytest.raises(StudioError):
        load_adapter(base, CHATGLM3 / "lora_adapter")


# Single files.


def golden_tensors(form: str) -> dict[str, torch.Tensor]:
    """The tensors of the golden ChatGLM-6B adapter under the names that a training loop saw: alpha is 32 there too."""
    stored = torch.load(CHATGLM / "lora_adapter" / "adapter_model.bin", weights_only=True)
    if form == "peft 0.2":
        return stored
    named = {name.replace(".weight", ".default.weight"): value for name, value in stored.items()}
    if form == "peft 0.3":
        return named
    return {name.replace("base_model.model", "module.base_model.model", 1): value for name, value in named.items()}


@pytest.mark.parametrize("form", ["peft 0.2", "peft 0.3", "several GPUs"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_a_single_file_of_trained_tensors(tmp_path, form, as_folder):
    file = tmp_path / "chatglm-lora.pt"
    torch.save(golden_tensors(form), file)
    path = tmp_path if as_folder else file
    about = adapter_form(path)
    assert (about.kind, about.assumed_alpha, about.weights) == ("single-file", 32, (file,))
    model = load_adapter(base_of(CHATGLM), path)
    assert_forward(model, cases()["lora_b1_gmask_target"])
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 32, {"query_key_value"})
    resident = Resident(base_of(CHATGLM))
    resident.load("old", path)
    assert_close(resident.forward(["old"], input_ids=IDS[:1]).logits, logits_of(model, IDS[:1]))
    model.save_pretrained(tmp_path / "peft")
    assert_forward(
        PeftModel.from_pretrained(base_of(CHATGLM).model, tmp_path / "peft"), cases()["lora_b1_gmask_target"]
    )


def test_a_config_beside_a_single_file_is_believed(tmp_path):
    torch.save(golden_tensors("peft 0.3"), tmp_path / "chatglm-lora.pt")
    config = json.loads((CHATGLM / "lora_adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 8}), encoding="utf-8")
    assert adapter_form(tmp_path).assumed_alpha is None
    model = load_adapter(base_of(CHATGLM), tmp_path / "chatglm-lora.pt")
    assert model.peft_config["default"].lora_alpha == 8
    assert (logits_of(model) - logits_of(load_adapter(base_of(CHATGLM), CHATGLM / "lora_adapter"))).abs().max() > 0.1


def test_a_single_file_on_some_layers_of_chatglm2(tmp_path):
    state = random_lora({"self_attention.query_key_value": (128, 64)}, range(1, 2))
    torch.save(state, tmp_path / "my-lora.pt")
    changed = base_of(changed_weights(CHATGLM2, tmp_path / "changed", deltas_of(state, 32 / 2)))
    model = load_adapter(base_of(CHATGLM2), tmp_path / "my-lora.pt")
    assert_close(logits_of(model), logits_of(changed.model), worst=1e-4, rms=1.2e-5)


def merged_linear(rank: int = 3) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors as peft 0.2 trained them by default (q and v thirds of the fused rows), and B @ A of each, by hand.

    The grouped convolution maps A's first `rank` outputs to the first third of the rows, the others to the last third.
    """
    dice = torch.Generator().manual_seed(3)
    rows = 192
    state, deltas = {}, {}
    for layer in range(3):
        module = f"transformer.layers.{layer}.attention.query_key_value"
        a = torch.randn(2 * rank, 64, generator=dice)
        b = torch.randn(2 * rows // 3, rank, 1, generator=dice) * 0.02
        state[f"base_model.model.{module}.lora_A.weight"], state[f"base_model.model.{module}.lora_B.weight"] = a, b
        conv = torch.nn.Conv1d(2 * rank, 2 * rows // 3, kernel_size=1, groups=2, bias=False)
        conv.weight.data.copy_(b)
        with torch.no_grad():
            kept = conv(a.T[:, :, None])[:, :, 0].T
        delta = torch.zeros(rows, 64)
        delta[: rows // 3], delta[2 * rows // 3 :] = kept[: rows // 3], kept[rows // 3 :]
        deltas[module] = delta
    return state, deltas


@pytest.mark.parametrize("form", ["single file", "folder", "flat B"])
def test_parts_of_a_fused_layer_as_peft_0_2_trained_them(tmp_path, form):
    state, deltas = merged_linear()
    changed = changed_weights(CHATGLM, tmp_path / "changed", {name: delta * 32 / 3 for name, delta in deltas.items()})
    if form == "flat B":
        state = {name: value.flatten(1) for name, value in state.items()}
    if form == "folder":
        path = written(
            tmp_path / "a",
            state,
            **{"r": 3, "lora_alpha": 32, "target_modules": ["query_key_value"], "fan_in_fan_out": True},
            **{"enable_lora": [True, False, True], "merge_weights": False, "modules_to_save": None},
        )
    else:
        path = tmp_path / "chatglm-lora.pt"
        torch.save(state, path)
    with warnings.catch_warnings():
        # PEFT says that a linear layer is not transposed: the old config claimed it of every single target.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to True")
        model = load_adapter(base_of(CHATGLM), path)
    layer = model.get_base_model().transformer.layers[1].attention.query_key_value
    expected = deltas["transformer.layers.1.attention.query_key_value"] * 32 / 3
    torch.testing.assert_close(layer.get_delta_weight("default"), expected, atol=1e-6, rtol=1e-5)
    assert_close(logits_of(model), logits_of(base_of(changed).model), worst=5e-5, rms=1e-5)
    assert (model.peft_config["default"].r, model.peft_config["default"].lora_alpha) == (6, 64)
