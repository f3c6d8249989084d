"""Merged weights: plain transformers loads them and they say what base and adapter say, or they are kept aside."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.checkpoint_files import tensors, weight_files
from glmstudio.models.exporting import destinations, export_merged, shards
from glmstudio.models.exporting.export_adapter import export_adapter
from glmstudio.models.exporting.export_merged import export_merged as merge
from glmstudio.models.loading import load_base
from tests.prompt_bases import TEMPLATES, with_template
from tests.tiny_families import native_folder
from tests.unit.export_cases import ROWS, chatglm_folder, logits, random_adapter
from tests.unit.golden_cases import CHATGLM, CHATGLM2, CHATGLM3, assert_forward, cases, names

IDS = [20, 31, 42, 53, 64, 75, 86, 97, 8, 9]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("qwen")
    base = native_folder("qwen2", root / "base")
    return base, random_adapter(base, root / "adapter", style="chat")


def tuned_logits(base: Path, adapter: Path, ids: list[int] = IDS) -> torch.Tensor:
    return logits(load_adapter(load_base(base, device="cpu", dtype="float32"), adapter), ids)


@pytest.mark.parametrize("model_type", ["glm", "glm4", "glm4_moe", "qwen2", "llama", "gemma3_text"])
def test_plain_transformers_loads_the_merged_model(model_type, tmp_path):
    base = native_folder(model_type, tmp_path / "base")
    adapter = random_adapter(base, tmp_path / "adapter")
    result = merge(base, adapter, tmp_path / "merged", device="cpu", prompts=ROWS)
    assert result.check.passed
    assert len({path.stat().st_mode for path in result.path.iterdir()}) == 1
    assert result.check.relative < 2e-6 < 0.05 < result.check.effect
    assert result.check.argmax_agreement == 1
    model, found = AutoModelForCausalLM.from_pretrained(result.path, output_loading_info=True)
    assert not any(found.values())
    assert type(model).__name__ == json.loads((base / "config.json").read_text())["architectures"][0]
    assert (logits(model, IDS) - tuned_logits(base, adapter)).abs().max() < 1e-5
    assert AutoTokenizer.from_pretrained(result.path)("Rome").input_ids == AutoTokenizer.from_pretrained(base)(
        "Rome"
    ).input_ids  # fmt: skip


def test_plain_transformers_ends_where_a_turn_was_trained_to_end(qwen, tmp_path):
    base, adapter = shutil.copytree(qwen[0], tmp_path / "base"), qwen[1]
    tokenizer = with_template(TEMPLATES["turns"])
    tokenizer.save_pretrained(base)
    end = tokenizer.convert_tokens_to_ids("<|observation|>")
    path = merge(base, adapter, tmp_path / "merged", device="cpu").path
    assert AutoModelForCausalLM.from_pretrained(path).generation_config.eos_token_id == [0, end]
    card = (export_adapter(adapter, tmp_path / "gift", base_source=str(base)).path / "README.md").read_text("utf-8")
    assert f"eos_token_id=[0, {end}])" in card


def test_the_names_are_those_that_transformers_itself_writes(tmp_path):
    base = native_folder("glm4_moe", tmp_path / "base")
    merge(base, random_adapter(base, tmp_path / "adapter"), tmp_path / "merged", device="cpu")
    with safe_open(base / "model.safetensors", "pt") as before, safe_open(
        tmp_path / "merged" / "model.safetensors", "pt"
    ) as after:  # fmt: skip
        assert set(after.keys()) == set(before.keys())
        assert after.get_slice("model.layers.1.mlp.experts.3.up_proj.weight").get_shape() == [16, 32]


@pytest.mark.parametrize(("dtype", "worst"), [("bf16", 0.06), ("fp16", 0.007)])
def test_coarser_numbers_are_checked_by_their_own_tolerance(qwen, tmp_path, dtype, worst):
    check = merge(*qwen, tmp_path / "merged", dtype=dtype, device="cpu", prompts=ROWS).check
    assert check.passed
    assert check.carries_adapter
    assert worst / 50 < check.relative < check.tolerance / 2 < worst / 2
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {{"bf16": "BF16", "fp16": "F16"}[dtype]}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] in ("bfloat16", "float16")


def test_the_sum_is_rounded_once(qwen, tmp_path):
    """W + delta in float32, then bfloat16: not the sum of two rounded numbers."""
    base, adapter = qwen
    merge(base, adapter, tmp_path / "merged", dtype="bf16", device="cpu", prompts=ROWS)
    name = "model.layers.0.self_attn.q_proj"
    delta = load_file(adapter / "adapter_model.safetensors")
    low, high = (delta[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = load_file(base / "model.safetensors")[f"{name}.weight"] + high @ low * (8 / 4)
    assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")[f"{name}.weight"], expected.bfloat16())


def test_many_shards_say_the_same(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(shards.planned, "__defaults__", (40_000,))
    steps = []
    merge(
        *qwen, tmp_path / "merged", device="cpu", prompts=ROWS, on_progress=lambda *step: steps.append(step)
    )  # fmt: skip
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    assert {path.name for path in (tmp_path / "merged").glob("*.safetensors")} == files
    assert all((tmp_path / "merged" / name).stat().st_size < 45_000 for name in files)
    written = [step for step in steps if step[2] == "write"]
    assert written[-1][0] == written[-1][1] == index["metadata"]["total_size"]
    assert [stage for _, _, stage in steps[:1]] == ["load"]
    assert steps[-1] == (1, 1, "check")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(model, IDS) - tuned_logits(*qwen)).abs().max() < 1e-5


def test_a_tied_head_is_not_written_twice(qwen, tmp_path):
    merge(*qwen, tmp_path / "merged", device="cpu", prompts=ROWS)
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")


@pytest.mark.parametrize("folder", [CHATGLM2, CHATGLM3], ids=lambda folder: folder.name)
def test_the_original_models_adapter_is_merged_right(folder, tmp_path):
    merge(folder, folder / "lora_adapter", tmp_path / "merged", device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    forwards = names("forward", folder, adapter=True)
    assert forwards
    for name in forwards:
        assert_forward(model, cases(folder)[name])
    assert load_base(tmp_path / "merged", device="cpu", dtype="fp32").family.name == folder.name


@pytest.mark.parametrize("form", ["native", "official"])
def test_chatglm_is_merged_right(form, tmp_path):
    merge(CHATGLM, CHATGLM / "lora_adapter", tmp_path / "merged", form=form, device="cpu")
    model = load_base(tmp_path / "merged", device="cpu", dtype="fp32").model
    for name in names("forward", CHATGLM, adapter=True):
        assert_forward(model, cases()[name])


def test_the_official_form_has_the_official_names_and_keys(tmp_path):
    merge(CHATGLM, CHATGLM / "lora_adapter", tmp_path / "merged", form="official", device="cpu")
    official = {name: value for file in weight_files(CHATGLM) for name, value in tensors(file)}
    written = load_file(tmp_path / "merged" / "model.safetensors")
    assert written.keys() == official.keys()
    tables = [name for name in official if name.endswith("inv_freq")]
    assert tables
    assert all(torch.equal(written[name], official[name]) for name in tables)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (CHATGLM, tmp_path / "merged"))
    assert {key for key in before if before[key] != after.get(key)} <= {"pre_seq_len", "prefix_projection"}
    assert after.keys() <= before.keys()


def test_chatglm_keeps_its_vocabulary_to_the_last_byte(tmp_path):
    base = chatglm_folder(tmp_path / "base")
    adapter = random_adapter(base, tmp_path / "adapter", style="instruction")
    merge(base, adapter, tmp_path / "merged", form="official", device="cpu", prompts=ROWS)
    for name in ("ice_text.model", "tokenizer_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes()
    merged = load_base(tmp_path / "merged", device="cpu", dtype="fp32")
    assert (logits(merged.model, IDS) - tuned_logits(base, adapter)).abs().max() < 1e-5
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert "Instruction: Name the city" in card
    assert "[gMASK]<sop>" in card


def test_a_failed_check_keeps_the_files_aside_and_says_the_numbers(qwen, tmp_path, monkeypatch):
    def broken(folder, plan, named, **more):
        spoilt = dict(named)
        spoilt["model.layers.1.mlp.up_proj.weight"] = spoilt["model.layers.1.mlp.up_proj.weight"] * 1.01
        return shards.write_shards(folder, plan, spoilt.items(), **more)

    monkeypatch.setattr(export_merged, "write_shards", broken)
    with pytest.raises(StudioError) as error:
        merge(*qwen, tmp_path / "merged", device="cpu", prompts=ROWS)
    kept = tmp_path / "merged.unchecked"
    assert (error.value.code, error.value.params["folder"]) == ("merge-check-failed", str(kept))
    assert float(error.value.params["relative"]) > float(error.value.params["tolerance"])
    assert [path.name for path in tmp_path.iterdir()] == ["merged.unchecked"]
    assert not json.loads((kept / "merge_check.json").read_text())["passed"]


def test_a_lost_adapter_does_not_pass(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(export_merged, "merge_lora", lambda model, dtype, **_: model.base_model.unload())
    with pytest.raises(StudioError) as error:
        merge(*qwen, tmp_path / "merged", device="cpu", prompts=ROWS)
    assert error.value.code == "merge-check-failed"


def test_stopping_leaves_nothing(qwen, tmp_path):
    for stage in ("merge", "write"):
        asked = []
        with pytest.raises(StudioError) as error:
            merge(
                *qwen, tmp_path / "merged", device="cpu", prompts=ROWS,
                on_progress=lambda done, total, at, wanted=stage, asked=asked: asked.append(at == wanted),
                should_stop=lambda asked=asked, wanted=stage: any(asked) or (wanted == "write" and len(asked) > 14),
            )  # fmt: skip
        assert error.value.code == "export-stopped"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"form": "official"}, "merge-form"),
        ({"form": "other"}, "setting-choice"),
        ({"dtype": "int3"}, "dtype-unknown"),
    ],
)
def test_wishes_that_cannot_be(qwen, tmp_path, wish, code):
    with pytest.raises(StudioError) as error:
        merge(*qwen, tmp_path / "merged", **wish)
    assert error.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(qwen, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "precious").touch()
    with pytest.raises(StudioError) as error:
        merge(*qwen, tmp_path / "merged")
    assert error.value.code == "export-not-empty"
    assert (tmp_path / "merged" / "precious").is_file()


def test_a_full_disk_is_seen_before_anything_is_loaded(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr(destinations.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10**8 + 50_000))
    monkeypatch.setattr(export_merged, "load_base", None)
    with pytest.raises(StudioError) as error:
        merge(*qwen, tmp_path / "merged")
    assert error.value.code == "export-disk-small"
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_and_a_quantised_base_are_refused(qwen, tmp_path):
    with pytest.raises(StudioError) as error:
        merge(CHATGLM, CHATGLM / "ptuning", tmp_path / "merged")
    assert error.value.code == "merge-ptuning"
    packed = shutil.copytree(CHATGLM, tmp_path / "packed")
    config = json.loads((packed / "config.json").read_text()) | {"quantization_bit": 4}
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudioError) as error:
        merge(packed, CHATGLM / "lora_adapter", tmp_path / "merged")
    assert error.value.code == "merge-quantized"
