"""A folder in original form rewritten for plain transformers: the same numbers, whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GlmForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.converting import convert
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base, load_tokenizer
from tests.small_vocabularies import sentencepiece_file, tiktoken_file, tiktoken_ranks
from tests.unit.golden_cases import (
    CHATGLM,
    CHATGLM2,
    CHATGLM3,
    GLM_4,
    assert_forward,
    assert_generates,
    cases,
    names,
)

SETS = {"chatglm2": CHATGLM2, "chatglm3": CHATGLM3, "glm-4": GLM_4}
PARTS = ("transformer.embedding.word_embeddings.weight", "transformer.output_layer.weight")


def with_tokenizer(source: Path, folder: Path) -> Path:
    """A copy of a golden folder with a small vocabulary, and rows for it: the old ones, then new ones of noise."""
    folder.mkdir()
    for file in source.glob("*.*"):
        shutil.copy(file, folder)
    data = tiktoken_file(tiktoken_ranks()) if source == GLM_4 else sentencepiece_file()
    (folder / "tokenizer.model").write_bytes(data)
    rows = len(load_tokenizer(folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(3)
    for shard in folder.glob("*.bin"):
        state = torch.load(shard, weights_only=True)
        for name in state.keys() & set(PARTS):
            state[name] = torch.cat((state[name], torch.randn(max(0, rows - len(state[name])), 64)))
        torch.save(state, shard)
    config["padded_vocab_size"] = max(rows, config["padded_vocab_size"])
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", SETS)
def test_plain_transformers_gets_the_originals_numbers(name, tmp_path):
    source, done = SETS[name], []
    report = convert(source, tmp_path / "new", on_progress=lambda *at: done.append(at))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert type(plain) is GlmForCausalLM
    for case in names("forward", source):
        assert_forward(plain, cases(source)[case])
    assert_generates(plain, cases(source)["gen_b1_ids_only"])
    stored = list((tmp_path / "new").glob("*.safetensors"))
    assert [path.name for path in stored] == ["model.safetensors"]
    assert (report.family, report.tensors, report.shards) == (name, len(plain.state_dict()), 1)
    assert report.bytes == sum(value.nbytes for value in plain.state_dict().values())
    assert done[-1][0] == done[-1][1]
    assert done == sorted(done)
    again = load_base(tmp_path / "new", device="cpu", dtype="float32")
    assert again.family is FAMILIES[name]
    assert_forward(again.model, cases(source)["b1_prompt"])


@pytest.mark.parametrize("name", SETS)
def test_several_shards_and_another_number_type(name, tmp_path):
    report = convert(SETS[name], tmp_path / "new", dtype="bf16", shard_bytes=100_000)
    files = sorted(path.name for path in (tmp_path / "new").glob("*.safetensors"))
    assert report.shards == len(files) > 2
    assert len({path.stat().st_mode for path in (tmp_path / "new").iterdir()}) == 1
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "new" / file).stat().st_size < 110_000 for file in files)
    plain, base = AutoModelForCausalLM.from_pretrained(tmp_path / "new"), load_base(SETS[name], dtype="bf16")
    assert plain.dtype == torch.bfloat16
    assert all(torch.equal(value, base.model.state_dict()[key]) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", SETS)
def test_the_tokenizer_is_one_of_plain_transformers(name, tmp_path):
    source = with_tokenizer(SETS[name], tmp_path / "old")
    convert(source, tmp_path / "new")
    original, base = load_base(source, dtype="fp32"), load_base(tmp_path / "new", dtype="fp32")
    plain = AutoTokenizer.from_pretrained(tmp_path / "new")
    texts = ["你好 world", "  a\n\nb"]
    wanted = dict(original.tokenizer(texts, padding=True))
    assert dict(base.tokenizer(texts, padding=True)) == dict(plain(texts, padding=True)) == wanted
    assert type(base.tokenizer).__module__ == type(original.tokenizer).__module__ or name == "glm-4"
    messages = [{"role": "user", "content": "hello"}]
    prompt = plain.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == original.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
    ids = torch.tensor([prompt])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, original.model(ids).logits)
    ends = model.generation_config.eos_token_id
    stops = original.tokenizer.convert_tokens_to_ids(list(FAMILIES[name].stop_tokens))
    assert set(ends) >= {
        *stops,
        original.tokenizer.eos_token_id,
        *torch.tensor(cases(SETS[name])["gen_b1_ids_only"]["eos_token_id"]).view(-1).tolist(),
    }


def refused(source: Path, destination: Path, **wish) -> StudioError:
    with pytest.raises(StudioError) as caught:
        convert(source, destination, **wish)
    return caught.value


def test_what_needs_no_conversion(tmp_path):
    convert(CHATGLM3, tmp_path / "new")
    for source, title in ((CHATGLM, "ChatGLM-6B"), (tmp_path / "new", "ChatGLM3-6B")):
        error = refused(source, tmp_path / "newer")
        assert (error.code, error.params["family"]) == ("convert-not-needed", title)
    assert not (tmp_path / "newer").exists()


def test_a_destination_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert refused(CHATGLM2, tmp_path).code == "export-not-empty"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert convert(CHATGLM2, tmp_path / "empty").shards == 1


@pytest.mark.parametrize("damage", ["missing", "shape", "foreign", "cut short", "quantised", "vocabulary", "dtype"])
def test_nothing_is_left_of_a_conversion_that_failed(damage, tmp_path):
    source, wish = tmp_path / "old", {}
    shutil.copytree(CHATGLM2, source)
    shard = source / "pytorch_model-00002-of-00002.bin"
    state = torch.load(shard, weights_only=True)
    fused = "transformer.encoder.layers.2.self_attention.query_key_value.weight"
    if damage == "missing":
        del state[fused]
    elif damage == "shape":
        state[fused] = state[fused][:-1]
    elif damage == "foreign":
        state["transformer.encoder.layers.3.mlp.dense_h_to_4h.weight"] = torch.ones(344, 64)
    elif damage == "quantised":
        config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"quantization_bit": 8}
        (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    elif damage == "vocabulary":
        (source / "tokenizer.model").write_bytes(sentencepiece_file())
    elif damage == "dtype":
        wish = {"dtype": "int3"}
    torch.save(state, shard)
    if damage == "cut short":
        shard.write_bytes(shard.read_bytes()[:3000])
    code = {"missing": "tensors-missing", "shape": "tensor-shape", "foreign": "tensor-foreign"}
    code |= {"cut short": "shard-unreadable", "quantised": "convert-quantised", "vocabulary": "vocabulary-misfit"}
    error = refused(source, tmp_path / "new", **wish)
    assert error.code == code.get(damage, "dtype-unknown")
    if damage in ("missing", "shape"):
        assert fused in (error.params.get("tensors") or error.params["tensor"])
        assert error.params["file"] == str(shard)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    if damage not in ("quantised", "dtype"):
        with pytest.raises(StudioError, match=code[damage]):
            load_base(source, device="cpu", dtype="fp32")


def test_half_precision_safetensors_stay_as_they_are(tmp_path):
    shutil.copy(CHATGLM3 / "config.json", tmp_path)
    state = {}
    for shard in CHATGLM3.glob("*.bin"):
        state |= torch.load(shard, weights_only=True)
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "model.safetensors")
    convert(tmp_path, tmp_path / "new")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert plain.dtype == torch.float16
    assert torch.equal(plain.lm_head.weight, state[PARTS[1]].half())
