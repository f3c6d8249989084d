"""From a folder to a base, and what is said when the files are not right."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from glmstudio.embedded.vocabulary import build_model
from glmstudio.errors import StudioError
from glmstudio.models import devices, processor, sources
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.families.chatglm import CHATGLM as CHATGLM_FAMILY
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base, load_tokenizer
from glmstudio.models.vocabularies.vocabulary_fit import tokens_in_use
from tests.small_vocabularies import sentencepiece_file, tiktoken_file, tiktoken_ranks
from tests.unit.golden_cases import (
    CHATGLM,
    CHATGLM2,
    CHATGLM3,
    FIRST,
    GLM_4,
    INDEX,
    SECOND,
    assert_forward,
    cases,
    chatglm_copy,
    tensor,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return chatglm_copy(tmp_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A tiny causal model of a family that transformers has built in, with a tokenizer and sampling defaults."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[2, 5], do_sample=True, temperature=0.5, repetition_penalty=1.3
    )
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


def refusal(source, **wish) -> StudioError:
    with pytest.raises(StudioError) as caught:
        load_base(source, **{"device": "cpu", "dtype": "float32"} | wish)
    return caught.value


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_shard(path: Path, **changes) -> None:
    """Replaces tensors of a pickled shard; None takes one out. Dots of a name are written as two underscores."""
    state = torch.load(path, weights_only=True)
    for name, value in changes.items():
        state.pop(name.replace("__", "."), None)
        if value is not None:
            state[name.replace("__", ".")] = value
    torch.save(state, path)


def with_rows(folder: Path, rows: int) -> None:
    """Gives the golden model an embedding and a head of `rows`."""
    edit_json(folder / "config.json", vocab_size=rows)
    edit_shard(folder / FIRST, transformer__word_embeddings__weight=torch.zeros(rows, 64))
    edit_shard(folder / SECOND, lm_head__weight=torch.zeros(rows, 64))


@pytest.mark.parametrize("dtype", ["fp32", "float32", "bf16", "bfloat16", "fp16", "float16"])
def test_a_folder_becomes_a_base(dtype):
    base = load_base(CHATGLM, device="cpu", dtype=dtype)
    expected = {"32": torch.float32, "bf": torch.bfloat16, "16": torch.float16}
    assert isinstance(base.model, ChatGLMForConditionalGeneration)
    assert base.family is CHATGLM_FAMILY
    assert base.tokenizer is None
    assert (base.source, base.device) == (str(CHATGLM), torch.device("cpu"))
    assert base.dtype == expected["bf" if "bf" in dtype else dtype[-2:]]
    assert {parameter.dtype for parameter in base.model.parameters()} == {base.dtype}
    assert not base.model.training
    assert base.model.generation_config.eos_token_id == 385
    assert base.model.generation_config.pad_token_id == 3
    assert base.model.generation_config.repetition_penalty in (None, 1.0)
    assert not base.model.generation_config.do_sample


def test_the_auto_choices_follow_the_machine(monkeypatch):
    for names, dtype in ((["avx512_bf16"], torch.bfloat16), (["amx_bf16"], torch.bfloat16), ([], torch.float32)):
        monkeypatch.setattr(processor, "instructions", lambda names=names: frozenset(names))
        assert devices.chosen_dtype("auto", torch.device("cpu")) == dtype
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert devices.chosen_dtype("auto", torch.device("cuda")) == dtype
    for able, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda able=able: able)
        assert devices.chosen_device("auto") == torch.device(device)


def test_safetensors_shards_and_a_wrapped_head(folder):
    state = {}
    for name in (FIRST, SECOND):
        state |= torch.load(folder / name, weights_only=True)
        (folder / name).unlink()
    (folder / INDEX).unlink()
    state["lm_head.0.weight"] = state.pop("lm_head.weight")
    save_file(state, folder / "model.safetensors")
    model = load_base(folder, device="cpu", dtype="fp32").model
    assert_forward(model, cases()["b1_gmask"])
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_forward(load_base(folder, device="cpu", dtype="fp32").model, cases()["b1_gmask"])


def test_the_tokenizer_of_the_folder_comes_along(folder):
    (folder / "ice_text.model").write_bytes(build_model())
    made = ChatGLMTokenizer(str(folder / "ice_text.model"), num_image_tokens=0)
    made.save_pretrained(folder)
    with_rows(folder, len(made))
    base = load_base(folder, device="cpu", dtype="fp32")
    assert isinstance(base.tokenizer, ChatGLMTokenizer)
    assert base.tokenizer.num_image_tokens == 0
    for name in ("ice_text.model", "tokenizer_config.json"):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        error = refusal(folder)
        assert (error.code, error.params["file"]) == ("base-incomplete", name)
        (folder / name).write_bytes(data)
    with_rows(folder, len(made) - 1)
    error = refusal(folder)
    assert error.code == "vocabulary-misfit"
    assert error.params == {"folder": str(folder), "tokens": len(made), "rows": len(made) - 1}


@pytest.mark.parametrize("folder_of_set", [CHATGLM2, CHATGLM3, GLM_4], ids=lambda folder: folder.name)
def test_a_vocabulary_larger_than_the_embedding(folder_of_set, tmp_path):
    for file in folder_of_set.glob("*.*"):
        shutil.copy(file, tmp_path)
    data = tiktoken_file(tiktoken_ranks(200)) if folder_of_set == GLM_4 else sentencepiece_file()
    (tmp_path / "tokenizer.model").write_bytes(data)
    tokens = len(load_tokenizer(tmp_path))
    error = refusal(tmp_path)
    rows = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["padded_vocab_size"]
    assert error.code == "vocabulary-misfit"
    assert error.params["rows"] == rows
    assert rows < error.params["tokens"] <= tokens


def test_special_tokens_without_a_row_count_only_where_they_are_used(llama):
    tokenizer = load_tokenizer(llama)
    assert tokens_in_use(tokenizer) == 4
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    assert tokens_in_use(tokenizer) == 4
    tokenizer.add_tokens(["typed"])
    assert tokens_in_use(tokenizer) == len(tokenizer) == 6
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokens_in_use(tokenizer) == 7


def test_the_embedded_base_is_a_folder_of_the_program(monkeypatch, tmp_path, folder):
    assert sources.embedded_folder().parts[-2:] == ("data", "embedded")
    monkeypatch.setattr(sources, "embedded_folder", lambda: folder)
    base = load_base("embedded", device="cpu", dtype="fp32")
    assert base.source == "embedded"
    assert base.model.name_or_path == "embedded"
    monkeypatch.setattr(sources, "embedded_folder", lambda: tmp_path / "gone")
    assert refusal("embedded").params == {"source": str(tmp_path / "gone")}


def test_a_native_family(llama):
    base = load_base(llama, device="cpu", dtype="bf16")
    assert isinstance(base.model, LlamaForCausalLM)
    assert base.family is FAMILIES["llama"]
    assert base.tokenizer.encode("hello") == [3]
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}
    config = base.model.generation_config
    assert config.eos_token_id == [2, 5]
    assert config.temperature in (None, 1.0)
    assert config.repetition_penalty in (None, 1.0)
    assert not config.do_sample


def test_no_such_folder(tmp_path):
    assert refusal(tmp_path / "gone").code == "base-missing"
    assert refusal("gone").params == {"source": "gone"}


def test_a_folder_that_is_no_model(tmp_path):
    error = refusal(tmp_path)
    assert (error.code, error.params) == ("base-not-a-model", {"folder": str(tmp_path)})
    (tmp_path / "model.safetensors").touch()
    error = refusal(tmp_path)
    assert (error.code, error.params) == ("config-missing", {"folder": str(tmp_path), "file": "model.safetensors"})


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff{}", ""])
def test_a_config_that_cannot_be_read(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    error = refusal(folder)
    assert (error.code, error.params["file"]) == ("file-unreadable", str(folder / "config.json"))
    assert error.params["reason"]


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 5}, {"position_encoding_2d": False}, {"num_layers": "x"}, {"num_attention_heads": 0}],
)
def test_a_config_that_describes_no_model(folder, changes):
    edit_json(folder / "config.json", **changes)
    assert refusal(folder).code == "config-unfit"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "abacus"}, "abacus"),
        ({"model_type": "clip"}, "clip"),
        ({"model_type": "chatglm2"}, "chatglm2"),
    ],
)
def test_a_family_that_is_not_supported(folder, changes, named):
    edit_json(folder / "config.json", **changes)
    error = refusal(folder)
    assert error.code == "unsupported-family"
    assert named in error.params["family"]
    assert "ChatGLM-6B" in error.params["supported"]
    assert "GLM-4-0414" in error.params["supported"]
    with pytest.raises(StudioError, match="unsupported-family"):
        load_tokenizer(folder)
    edit_json(folder / "config.json", model_type="")
    assert refusal(folder).code == "config-no-type"


def test_a_missing_shard(folder):
    (folder / SECOND).unlink()
    error = refusal(folder)
    assert (error.code, error.params) == ("base-incomplete", {"folder": str(folder), "file": SECOND})


@pytest.mark.parametrize("suffix", ["incomplete", "part", "crdownload"])
def test_a_file_still_on_its_way(folder, suffix):
    (folder / SECOND).rename(folder / f"{SECOND}.{suffix}")
    assert (refusal(folder).code, refusal(folder).params["file"]) == ("base-incomplete", SECOND)
    (folder / f"{SECOND}.{suffix}").rename(folder / SECOND)
    (folder / f"{SECOND}.{suffix}").touch()
    assert_forward(load_base(folder, device="cpu", dtype="fp32").model, cases()["b1_gmask"])


def test_a_download_of_aria2_is_not_ready_at_full_size(folder):
    (folder / f"{FIRST}.aria2").touch()
    assert (refusal(folder).code, refusal(folder).params["file"]) == ("base-incomplete", FIRST)


def test_no_weights(folder):
    for name in (FIRST, SECOND, INDEX):
        (folder / name).unlink()
    assert refusal(folder).code == "base-no-weights"


def test_an_index_without_a_map(folder):
    (folder / INDEX).write_text('{"metadata": {}}', encoding="utf-8")
    assert (refusal(folder).code, refusal(folder).params["file"]) == ("file-unreadable", str(folder / INDEX))


@pytest.mark.parametrize("name", [FIRST, "config.json", INDEX, "tokenizer_config.json"])
def test_a_pointer_instead_of_the_file(folder, name):
    (folder / "ice_text.model").write_bytes(build_model())
    (folder / "tokenizer_config.json").write_text('{"num_image_tokens": 0}', encoding="utf-8")
    with_rows(folder, 8000)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    (folder / name).write_text(pointer, encoding="utf-8")
    error = refusal(folder)
    assert (error.code, error.params["file"]) == ("lfs-pointer", str(folder / name))


@pytest.mark.parametrize("kind", ["cut short", "text", "empty", "list", "no tensors"])
def test_a_shard_that_cannot_be_read(folder, kind):
    path = folder / SECOND
    data = path.read_bytes()
    if kind in ("cut short", "text", "empty"):
        path.write_bytes({"cut short": data[: len(data) // 2], "text": b"<html>not found</html>", "empty": b""}[kind])
    else:
        torch.save({"list": [torch.ones(1)], "no tensors": {"a": 1}}[kind], path)
    error = refusal(folder)
    assert (error.code, error.params["file"]) == ("shard-unreadable", str(path))
    assert error.params["reason"]


@pytest.mark.parametrize("family", ["chatglm", "llama"])
def test_safetensors_that_are_cut_short(folder, llama, tmp_path, family):
    if family == "chatglm":
        broken = folder
        save_file(torch.load(folder / FIRST, weights_only=True), broken / "model.safetensors")
    else:
        broken = tmp_path / "llama"
        shutil.copytree(llama, broken)
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    error = refusal(broken)
    assert (error.code, error.params["file"]) == ("shard-unreadable", str(path))


def test_a_tensor_of_another_shape(folder):
    edit_shard(folder / SECOND, transformer__layers__2__mlp__dense_h_to_4h__weight=torch.ones(128, 64))
    error = refusal(folder)
    assert error.code == "tensor-shape"
    assert error.params == {
        "file": str(folder / SECOND),
        "tensor": "transformer.layers.2.mlp.dense_h_to_4h.weight",
        "expected": [256, 64],
        "actual": "[128, 64] float32",
    }


def test_integers_where_weights_should_be(folder):
    edit_shard(folder / SECOND, transformer__final_layernorm__weight=torch.ones(64, dtype=torch.int8))
    assert (refusal(folder).code, refusal(folder).params["actual"]) == ("tensor-shape", "[64] int8")


def test_a_tensor_of_another_model(folder):
    edit_shard(folder / SECOND, transformer__layers__3__mlp__dense_h_to_4h__weight=torch.ones(256, 64))
    error = refusal(folder)
    assert (error.code, error.params["file"]) == ("tensor-foreign", str(folder / SECOND))
    assert error.params["tensor"] == "transformer.layers.3.mlp.dense_h_to_4h.weight"


def test_missing_tensors(folder):
    edit_shard(folder / SECOND, transformer__final_layernorm__weight=None, transformer__final_layernorm__bias=None)
    error = refusal(folder)
    assert error.code == "tensors-missing"
    assert (error.params["count"], error.params["file"]) == (2, str(folder / SECOND))
    assert error.params["tensors"] == "transformer.final_layernorm.bias, transformer.final_layernorm.weight"


def test_the_head_may_be_missing_only_where_it_is_tied(folder):
    edit_shard(folder / SECOND, lm_head__weight=None)
    assert_forward(load_base(folder, device="cpu", dtype="fp32").model, cases()["b1_gmask"])
    edit_json(folder / "config.json", tie_word_embeddings=False)
    assert (refusal(folder).code, refusal(folder).params["tensors"]) == ("tensors-missing", "lm_head.weight")


def test_a_native_model_with_wrong_tensors(llama, tmp_path):
    broken = tmp_path / "llama"
    shutil.copytree(llama, broken)
    edit_json(broken / "config.json", intermediate_size=64)
    error = refusal(broken)
    assert (error.code, error.params["file"]) == ("tensor-shape", str(broken / "model.safetensors"))
    assert error.params["tensor"].startswith("model.layers.0.mlp.")
    edit_json(broken / "config.json", intermediate_size=32, num_hidden_layers=3)
    error = refusal(broken)
    assert error.code == "tensors-missing"
    assert "model.layers.2." in error.params["tensors"]
    edit_json(broken / "config.json", num_hidden_layers=1)
    error = refusal(broken)
    assert (error.code, error.params["file"]) == ("tensor-foreign", str(broken / "model.safetensors"))
    assert error.params["tensor"].startswith("model.layers.1.")
    edit_json(broken / "config.json", num_hidden_layers=2, hidden_act="none of these")
    error = refusal(broken)
    assert (error.code, error.params["folder"]) == ("base-unreadable", str(broken))


def test_a_tokenizer_that_cannot_be_read(llama, tmp_path):
    broken = tmp_path / "llama"
    shutil.copytree(llama, broken)
    (broken / "tokenizer.json").write_text("{", encoding="utf-8")
    assert refusal(broken).code == "tokenizer-unreadable"


def test_wishes_that_cannot_be_met():
    error = refusal(CHATGLM, dtype="int8")
    assert (error.code, error.params["dtype"]) == ("dtype-unknown", "int8")
    for device in ("meta?", "cuda:99"):
        error = refusal(CHATGLM, device=device)
        assert (error.code, error.params["device"]) == ("device-unavailable", device)


def test_a_base_does_not_hang_on_its_files(folder):
    model = load_base(folder, device="cpu", dtype="fp32").model
    for name in (FIRST, SECOND):
        (folder / name).write_bytes(b"\0" * (folder / name).stat().st_size)
    ids = tensor(cases()["b1_gmask"]["input_ids"])
    assert model(ids).logits.isfinite().all()
    assert_forward(model, cases()["b1_gmask"])
