"""What is told about a model folder without loading it, and everything that is wrong with one at once."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from glmstudio.commands import doctor as doctor_command
from glmstudio.embedded.vocabulary import build_model
from glmstudio.errors import StudioError
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.checkpoint_files import Header
from glmstudio.models.hubs.hub_transfer import HubFile, wanted
from glmstudio.models.inspection import doctor
from glmstudio.models.inspection.anatomy import anatomy
from glmstudio.models.inspection.doctor import Conversion, examine
from glmstudio.models.inspection.memory_needs import FITS, Needs, fitting, memory_needs
from glmstudio.models.loading import load_base
from glmstudio.ui.language import error_text
from tests.tiny_families import QUIRKS, native_folder
from tests.unit.golden_cases import CHATGLM, FIRST, INDEX, SECOND, chatglm_copy

GOLDEN = CHATGLM.parent


@pytest.fixture
def folder(tmp_path) -> Path:
    return chatglm_copy(tmp_path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return native_folder("qwen2", tmp_path_factory.mktemp("qwen2"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def codes(source: Path) -> list[str]:
    """The codes of what is wrong; each has its sentence in both languages, filled whole."""
    found = examine(source, device="cpu", dtype="fp32")
    assert found.next_step == ("mend" if found.problems else found.next_step)
    for error in found.problems:
        for language in ("en", "zh"):
            assert "{" not in error_text(error, language)
    return [error.code for error in found.problems if error.code != "no-tokenizer"]


@pytest.mark.parametrize(
    ("name", "family", "form", "conversion"),
    [
        ("chatglm", "chatglm", "official", None),
        ("chatglm2", "chatglm2", "original", Conversion(renamed=18, split=6)),
        ("chatglm3", "chatglm3", "original", Conversion(renamed=13, split=4)),
        ("glm4_text", "glm-4", "original", Conversion(renamed=18, split=6)),
    ],
)
def test_the_original_forms(name, family, form, conversion):
    found = examine(GOLDEN / name, device="cpu", dtype="fp32")
    model = load_base(GOLDEN / name, device="cpu", dtype="fp32").model
    assert (found.family, found.form, found.conversion) == (family, form, conversion)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.needs["none"].weights == 4 * found.parameters
    assert found.dtypes == {"float32": sum(found.dtypes.values())}
    assert [error.code for error in found.problems] == ["no-tokenizer"]


@pytest.mark.parametrize("model_type", sorted(QUIRKS))
def test_native_families(model_type, tmp_path):
    found = examine(native_folder(model_type, tmp_path), device="cpu", dtype="fp32")
    model = load_base(tmp_path, device="cpu", dtype="fp32").model
    assert (found.family, found.form, found.conversion, found.problems) == (model_type, "native", None, [])
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.tokenizer.styles == ("instruction", "chat")
    assert found.tokenizer.tokens <= found.tokenizer.rows
    assert found.tokenizer.stops["<|endoftext|>"] == 0
    assert found.bytes_on_disk == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert found.next_step == "use"


def test_the_embedded_base():
    found = examine("embedded", device="cpu", dtype="fp32")
    assert (found.form, found.title, found.problems) == ("embedded", "ChatGLM-6B", [])
    assert found.tokenizer.stops == {"<eop>": 7}
    assert found.tokenizer.tokens == found.tokenizer.rows == 7720


def test_a_merged_checkpoint_of_2023(folder):
    state = torch.load(folder / FIRST, weights_only=True) | torch.load(folder / SECOND, weights_only=True)
    state["lm_head.0.weight"] = state.pop("lm_head.weight")
    for name in (INDEX, FIRST, SECOND):
        (folder / name).unlink()
    torch.save(state, folder / "pytorch_model.bin")
    found = examine(folder, device="cpu", dtype="fp32")
    assert (found.form, codes(folder)) == ("merged", [])
    assert found.parameters == examine(CHATGLM, device="cpu", dtype="fp32").parameters


def test_everything_that_is_wrong_at_once(folder):
    (folder / SECOND).unlink()
    (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-100])
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    assert codes(folder) == ["base-incomplete", "shard-unreadable", "lfs-pointer"]


def test_shards_that_are_wrong(folder, tmp_path):
    torch.save({"a": os.getcwd}, folder / SECOND)
    assert codes(folder) == ["pickle-runs-code"]
    (folder / SECOND).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    assert codes(folder) == ["lfs-pointer"]
    (folder / SECOND).rename(folder / f"{SECOND}.incomplete")
    assert codes(folder) == ["base-incomplete"]


def test_safetensors_cut_short(qwen, tmp_path):
    broken = tmp_path / "qwen"
    shutil.copytree(qwen, broken)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert codes(broken) == ["shard-unreadable"]


def test_config_without_weights_and_weights_without_config(folder, tmp_path):
    (tmp_path / "config").mkdir()
    (folder / "config.json").rename(tmp_path / "config" / "config.json")
    assert codes(tmp_path / "config") == ["base-no-weights"]
    assert codes(folder) == ["config-missing"]


def test_tensors_of_another_model(folder, qwen, tmp_path):
    state = torch.load(folder / SECOND, weights_only=True)
    torch.save(state | {"transformer.word_embeddings.extra": torch.ones(2)}, folder / SECOND)
    edit_config(folder, inner_hidden_size=128)
    assert codes(folder) == ["tensor-shape", "tensor-shape"]
    edit_config(folder, inner_hidden_size=256)
    assert codes(folder) == ["tensor-foreign"]
    del state["transformer.final_layernorm.weight"]
    torch.save(state, folder / SECOND)
    assert codes(folder) == ["tensors-missing"]
    edit_config(folder, num_attention_heads=5)
    assert codes(folder) == ["config-unfit"]
    native = tmp_path / "qwen"
    shutil.copytree(qwen, native)
    state = load_file(native / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if "layers.1.mlp" not in name}, native / "model.safetensors"
    )
    assert codes(native) == ["tensors-missing"]
    edit_config(native, intermediate_size=48)
    assert codes(native) == ["tensor-shape"]


def test_an_original_form_with_a_tensor_missing(tmp_path):
    shutil.copytree(GOLDEN / "chatglm2", tmp_path / "chatglm2")
    folder = tmp_path / "chatglm2"
    state = torch.load(folder / SECOND, weights_only=True)
    name = next(name for name in state if name.endswith("self_attention.query_key_value.weight"))
    del state[name]
    torch.save(state, folder / SECOND)
    (error,) = (error for error in examine(folder).problems if error.code != "no-tokenizer")
    assert (error.code, error.params["tensors"], error.params["count"]) == ("tensors-missing", name, 1)
    assert error.params["file"] == str(folder / SECOND)


def test_a_family_that_is_not_known_and_weights_that_are_not_read(folder):
    edit_config(folder, model_type="abacus")
    assert codes(folder) == ["unsupported-family"]
    edit_config(folder, model_type="chatglm", quantization_config={"quant_method": "gptq"})
    assert codes(folder) == ["base-quantized"]


def test_no_model_type_and_a_missing_index(folder):
    edit_config(folder, model_type="")
    assert codes(folder) == ["config-no-type"]
    edit_config(folder, model_type="chatglm")
    (folder / INDEX).unlink()
    (error,) = [error for error in examine(folder).problems if error.code != "no-tokenizer"]
    assert (error.code, error.params["count"], error.params["file"]) == ("base-index-missing", 2, INDEX)
    assert error.params["parts"] == f"{FIRST}, {SECOND}"


@pytest.mark.parametrize("entry", ["../other/model.bin", "/etc/passwd", "a/../../model.bin", "C:\\model.bin"])
def test_an_index_that_climbs_out_of_the_folder(folder, entry):
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"][next(iter(index["weight_map"]))] = entry
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert codes(folder) == ["index-climbs"]
    with pytest.raises(StudioError, match="index-climbs"):
        load_base(folder)
    with pytest.raises(StudioError, match="index-climbs"):
        wanted("owner/name", [HubFile(INDEX, 1, None)], lambda name: folder / name)
    index["weight_map"] = {"a": ["b"]}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert codes(folder) == ["file-unreadable"]


def test_an_adapter_is_told_with_its_base(folder, tmp_path):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    (error,) = examine(folder).problems
    assert (error.code, error.params["base"]) == ("base-is-adapter", "owner/base")
    with pytest.raises(StudioError, match="base-is-adapter"):
        load_base(folder)
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    (prefix / "config.json").write_text((folder / "config.json").read_text(encoding="utf-8"))
    torch.save({"transformer.prefix_encoder.embedding.weight": torch.ones(2, 4)}, prefix / "pytorch_model.bin")
    assert codes(prefix) == ["base-is-adapter"]


def test_a_vocabulary_that_is_larger_than_the_embedding(folder):
    (folder / "ice_text.model").write_bytes(build_model())
    ChatGLMTokenizer(str(folder / "ice_text.model"), num_image_tokens=0).save_pretrained(folder)
    found = examine(folder)
    assert [error.code for error in found.problems] == ["vocabulary-misfit"]
    assert (found.tokenizer.tokens, found.tokenizer.rows) == (7720, 400)


def test_files_of_the_hub_are_checked_against_their_names(tmp_path, qwen):
    snapshot, blobs = tmp_path / "snapshots" / "0", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in qwen.iterdir():
        data = file.read_bytes()
        name = hashlib.sha256(data).hexdigest() if file.suffix == ".safetensors" else hashlib.sha1(data).hexdigest()
        (blobs / name).write_bytes(data)
        (snapshot / file.name).symlink_to(blobs / name)
    found = examine(snapshot, verify=True)
    assert (found.verified, found.problems) == (1, [])
    weights = (snapshot / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\1"[-1:])
    found = examine(snapshot, verify=True)
    (error,) = found.problems
    assert (found.verified, error.code, error.params["file"]) == (0, "file-checksum", str(weights))
    assert error.params["expected"] == weights.name
    assert examine(snapshot).verified is None


def test_what_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StudioError, match="base-missing"):
        examine(tmp_path / "gone")
    with pytest.raises(StudioError, match="doctor-not-here"):
        examine("nobody/nothing")


def test_packed_weights_take_what_they_take(tmp_path):
    shutil.copytree(GOLDEN / "chatglm", tmp_path / "int4")
    folder = tmp_path / "int4"
    whole = anatomy(GOLDEN / "chatglm", "chatglm")
    for name in (FIRST, SECOND):
        state = torch.load(folder / name, weights_only=True)
        for tensor in [name for name in state if name.endswith(".weight") and state[name].ndim == 2]:
            if "word_embeddings" not in tensor and "lm_head" not in tensor:
                rows, columns = state[tensor].shape
                state[tensor] = torch.zeros(rows, columns // 2, dtype=torch.int8)
                state[f"{tensor}_scale"] = torch.ones(rows, dtype=torch.float16)
        torch.save(state, folder / name)
    edit_config(folder, quantization_bit=4)
    found = examine(folder, device="cpu", dtype="fp32")
    assert (found.form, codes(folder), list(found.needs)) == ("int4", [], ["none"])
    assert found.parameters == whole.parameters
    assert found.needs["none"].weights < memory_needs(whole, number_bytes=4).weights / 2


def test_memory_of_the_published_sizes(tmp_path):
    """ChatGLM3-6B's numbers: 6.2 billion parameters, 28 layers, 2 key groups of 128."""
    sizes = {"num_layers": 28, "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128}
    (tmp_path / "config.json").write_text(
        json.dumps(
            json.loads((GOLDEN / "chatglm3" / "config.json").read_text(encoding="utf-8"))
            | sizes
            | {"num_attention_heads": 32, "multi_query_group_num": 2, "padded_vocab_size": 65024}
        ),
        encoding="utf-8",
    )
    found = anatomy(tmp_path, "chatglm3-6b")
    layer = {"query_key_value": (4608, 4096), "dense": (4096, 4096)}
    layer |= {"dense_h_to_4h": (27392, 4096), "dense_4h_to_h": (4096, 13696)}
    shapes = {
        f"transformer.encoder.layers.{n}.x.{name}.weight": shape for n in range(28) for name, shape in layer.items()
    }
    shapes |= {
        "transformer.embedding.word_embeddings.weight": (65024, 4096),
        "transformer.output_layer.weight": (65024, 4096),
    }
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    found.headers[tmp_path] = {name: Header(tuple(t.shape), "float16") for name, t in tensors.items()}
    needs = memory_needs(found, number_bytes=2, length=2048)
    packed = memory_needs(found, number_bytes=2, quantization="4bit", length=2048)
    assert needs.weights == pytest.approx(12.49e9, rel=0.01)
    assert needs.answer - needs.weights == 2 * 28 * 256 * 2 * 2048 * 2
    assert 13e9 < needs.train_least < 14e9
    assert needs.train > 50e9
    assert 3.9e9 < packed.weights < 4.3e9


def test_what_fits():
    needs = Needs(weights=1, answer=2, train=9, train_least=4)
    assert [fitting(needs, free) for free in (9, 8, 3, 1)] == list(FITS)
    steps = [("train", "train"), ("train-least", "nothing"), ("answer", "train-least"), ("nothing", "answer")]
    assert [doctor._next_step({"none": none, "4bit": four}) for none, four in steps] == [
        "use",
        "use",
        "quantise",
        "answer",
    ]
    assert doctor._next_step({"none": "nothing"}) == "too-large"


def test_the_command(capsys, folder):
    parser = doctor_command.argparse.ArgumentParser()
    doctor_command.add_doctor(parser.add_subparsers())
    args = parser.parse_args(["doctor", "embedded"])
    assert args.command(args) == 0
    text = capsys.readouterr().out
    assert "ChatGLM-6B" in text
    assert "5,135,872 parameters" in text
    (folder / SECOND).unlink()
    args = parser.parse_args(["doctor", str(folder), "--json", "--verify"])
    assert args.command(args) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["problems"][0]["code"] == "base-incomplete"
    assert SECOND in found["problems"][0]["sentence"]
    assert found["needs"]["none"]["weights"] > 0
    args = parser.parse_args(["doctor", str(folder)])
    assert args.command(args) == 2
    assert "Mend" in capsys.readouterr().out
