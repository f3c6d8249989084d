"""Adapters of another base, of another kind, and damaged ones: each is told, and the base stays as it was."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base import Base
from glmstudio.models.resident import Resident
from tests.old_adapters import IDS, OFFICIAL, base_of, fused, logits_of, written
from tests.unit.golden_cases import CHATGLM, CHATGLM2, CHATGLM3


def refusal(base: Base, path: Path) -> StudioError:
    """What both ways of loading say; the base's layers and answers are the same before and after."""
    layers, before = [name for name, _ in base.model.named_modules()], logits_of(base.model)
    with pytest.raises(StudioError) as caught:
        load_adapter(base, path)
    resident = Resident(base)
    with pytest.raises(StudioError) as again:
        resident.load("a", path)
    assert (caught.value.code, caught.value.params) == (again.value.code, again.value.params)
    assert [name for name, _ in base.model.named_modules()] == layers
    assert torch.equal(logits_of(base.model), before)
    assert torch.equal(resident.forward(["__base__"] * 2, input_ids=IDS).logits, before)
    return caught.value


def test_an_adapter_of_other_sizes_names_both_bases_and_the_first_tensor(tmp_path):
    name = "THUDM/glm-4-9b"
    path = written(tmp_path / "a", fused(rows=96), target_modules=["query_key_value"], base_model_name_or_path=name)
    told = refusal(base_of(CHATGLM2), path)
    assert (told.code, told.params["trained_on"], told.params["source"]) == ("adapter-other-base", name, str(CHATGLM2))
    assert told.params["tensor"] == OFFICIAL.format(0, "self_attention.query_key_value", "lora_B.weight")
    assert (told.params["actual"], told.params["expected"]) == ([96, 2], [128, 2])
    told = refusal(base_of(CHATGLM2), written(tmp_path / "b", fused(columns=32), target_modules=["query_key_value"]))
    assert (told.code, told.params["actual"], told.params["expected"]) == ("adapter-other-base", [2, 32], [2, 64])


def test_an_adapter_of_another_family_is_refused_by_layers_or_by_name(tmp_path):
    told = refusal(base_of(CHATGLM), CHATGLM3 / "lora_adapter")
    assert (told.code, told.params["trained_on"]) == ("adapter-other-family", "THUDM/chatglm3-6b")
    told = refusal(base_of(CHATGLM3), CHATGLM2 / "lora_adapter")
    assert (told.code, told.params["family"]) == ("adapter-other-family", "ChatGLM3-6B")
    told = refusal(base_of(CHATGLM3), CHATGLM2 / "ptuning")
    assert (told.code, told.params["trained_on"]) == ("adapter-other-family", "THUDM/chatglm2-6b")
    nameless = written(tmp_path / "a", fused(), target_modules=["query_key_value"])
    told = refusal(base_of(CHATGLM), nameless)
    assert (told.code, told.params["trained_on"]) == ("adapter-other-layers", "?")
    assert told.params["tensor"] == "transformer.encoder.layers.0.self_attention.query_key_value"


def test_an_adapter_of_more_layers_is_refused(tmp_path):
    told = refusal(base_of(CHATGLM2), written(tmp_path / "a", fused(layers=4), target_modules=["query_key_value"]))
    assert (told.code, told.params["tensor"]) == ("adapter-other-layers", "model.layers.3.self_attn.q_proj")


def test_weights_that_the_config_promises_must_be_there(tmp_path):
    told = refusal(base_of(CHATGLM2), written(tmp_path / "a", fused(layers=2), target_modules=["query_key_value"]))
    assert (told.code, told.params["count"]) == ("adapter-incomplete", 6)
    told = refusal(base_of(CHATGLM2), written(tmp_path / "b", fused(), target_modules=["query_key_value", "dense"]))
    assert (told.code, told.params["count"]) == ("adapter-incomplete", 6)
    assert ".o_proj." in told.params["tensor"]


def test_a_rank_that_differs_from_the_config(tmp_path):
    told = refusal(base_of(CHATGLM2), written(tmp_path / "a", fused(), target_modules=["query_key_value"], r=8))
    assert told.code == "adapter-unfit"
    assert "rank 2" in told.params["reason"]
    assert "r = 8" in told.params["reason"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("bias", "all"), ("bias", "lora_only"), ("init_lora_weights", "pissa"), ("layer_replication", [[0, 2], [1, 3]])],
)
def test_settings_that_change_the_base_are_refused(tmp_path, setting, value):
    path = written(tmp_path / "a", fused(), target_modules=["query_key_value"], **{setting: value})
    told = refusal(base_of(CHATGLM2), path)
    assert (told.code, told.params["setting"]) == ("adapter-changes-base", f"{setting}: {value}")


def test_a_setting_of_a_later_peft_is_left_out_with_a_warning_and_a_wrong_one_refused(tmp_path):
    path = written(tmp_path / "a", fused(), target_modules=["query_key_value"], of_next_year=True)
    with pytest.warns(UserWarning, match="of_next_year"):
        load_adapter(base_of(CHATGLM2), path)
    path = written(tmp_path / "b", fused(), target_modules=["query_key_value"], bias="sometimes")
    assert refusal(base_of(CHATGLM2), path).code == "adapter-changes-base"
    path = written(tmp_path / "c", fused(), target_modules=["query_key_value"], target_parameters="experts")
    assert refusal(base_of(CHATGLM2), path).code == "adapter-unfit"
    assert refusal(base_of(CHATGLM2), path / "not-there").code == "adapter-missing"


def test_other_kinds_of_adapters_are_named(tmp_path):
    path = written(tmp_path / "a", fused(), target_modules=["query_key_value"], peft_type="IA3")
    told = refusal(base_of(CHATGLM2), path)
    assert (told.code, told.params["kind"]) == ("adapter-kind", "IA3")


def test_a_single_file_that_holds_something_else(tmp_path):
    torch.save(fused() | {"lm_head.weight": torch.zeros(2, 2)}, tmp_path / "chatglm-lora.pt")
    told = refusal(base_of(CHATGLM2), tmp_path)
    assert (told.code, told.params["tensor"], told.params["count"]) == ("adapter-foreign-tensor", "lm_head.weight", 1)
    torch.save({}, tmp_path / "chatglm-lora.pt")
    assert refusal(base_of(CHATGLM2), tmp_path).code == "adapter-missing"
    (tmp_path / "chatglm-lora.pt").write_bytes(b"PK\x03\x04 cut short")
    assert refusal(base_of(CHATGLM2), tmp_path).code == "shard-unreadable"
    (tmp_path / "chatglm-lora.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert refusal(base_of(CHATGLM2), tmp_path).code == "lfs-pointer"


def test_two_single_files_in_a_folder_must_be_chosen_from(tmp_path):
    for name in ("a-lora.pt", "b-lora.pt"):
        torch.save(fused(), tmp_path / name)
    assert refusal(base_of(CHATGLM2), tmp_path).code == "adapter-missing"
    assert isinstance(load_adapter(base_of(CHATGLM2), tmp_path / "b-lora.pt"), PeftModel)


def test_a_pickled_module_is_refused_unread(tmp_path):
    file = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), file)
    told = refusal(base_of(CHATGLM2), file)
    assert (told.code, told.params["file"]) == ("pickle-runs-code", str(file))
    assert "torch.nn.modules.linear.Linear" in told.params["names"]
    # A merged model that was saved in this way has no other weights.
    shutil.copy(CHATGLM / "config.json", tmp_path)
    with pytest.raises(StudioError, match="base-no-weights"):
        base_of(tmp_path)
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(StudioError, match="pickle-runs-code"):
        base_of(tmp_path)
