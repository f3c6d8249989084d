"""Which bases are found on this machine, and what is told about them."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from glmstudio.models.inspection.library import LocalBase, bases_on_this_machine
from glmstudio.models.inspection.memory_needs import FITS
from glmstudio.models.used_bases import remember, remembered
from tests.tiny_families import native_folder
from tests.unit.golden_cases import CHATGLM

COMMIT = "0" * 40


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A workspace, and caches of the hubs that are empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    return tmp_path / "root"


def cached(source: str, model: Path, *, whole: bool = True) -> Path:
    """Puts a model into Hugging Face's cache; half a download has no ref."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(model, snapshot)
    if whole:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return snapshot


def found(root: Path, **options) -> dict[str, LocalBase]:
    return {base.source: base for base in bases_on_this_machine(root, **options)}


def test_an_empty_machine_has_the_embedded_base(root):
    (base,) = bases_on_this_machine(root)
    assert (base.source, base.form, base.title, base.whole) == ("embedded", "embedded", "ChatGLM-6B", True)
    assert base.parameters == 5_135_872
    assert set(base.fits.values()) <= set(FITS)


def test_every_place_is_looked_into(root, tmp_path):
    qwen = native_folder("qwen2", tmp_path / "qwen")
    cached("Qwen/Some-Model.v2", qwen)
    shutil.copytree(CHATGLM, tmp_path / "ms" / "models" / "ZhipuAI--chatglm-6b" / "snapshots" / "master")
    shutil.copytree(qwen, root / "checkpoints" / "run-0001" / "merged")
    shutil.copytree(qwen, root / "checkpoints" / "converted")
    remember(root, str(qwen))
    remember(root, "gone/before")
    bases = found(root)
    assert next(iter(bases)) == "embedded"
    assert {name: (base.family, base.form) for name, base in bases.items()} == {
        "embedded": ("chatglm", "embedded"),
        "Qwen/Some-Model.v2": ("qwen2", "native"),
        "modelscope:ZhipuAI/chatglm-6b": ("chatglm", "official"),
        str(root / "checkpoints" / "run-0001" / "merged"): ("qwen2", "native"),
        str(root / "checkpoints" / "converted"): ("qwen2", "native"),
        str(qwen): ("qwen2", "native"),
    }
    assert all(base.whole for base in bases.values())


def test_one_folder_is_listed_once(root, tmp_path):
    snapshot = cached("some/model", native_folder("glm", tmp_path / "glm"))
    remember(root, str(snapshot))
    remember(root, "some/model")
    assert list(found(root)) == ["embedded", "some/model"]


def test_what_is_no_base_is_not_listed(root, tmp_path):
    qwen = native_folder("qwen2", tmp_path / "qwen")
    for name in ("merged.unchecked", ".merged.writing"):
        shutil.copytree(qwen, root / "checkpoints" / name)
    for name in ("best", "empty"):
        (root / "checkpoints" / "run-0001" / name).mkdir(parents=True)
    prefix = root / "checkpoints" / "run-0001" / "best"
    shutil.copy(CHATGLM / "config.json", prefix)
    torch.save({"transformer.prefix_encoder.embedding.weight": torch.zeros(4, 8)}, prefix / "pytorch_model.bin")
    assert list(found(root)) == ["embedded"]


def test_what_is_wrong_is_said(root, tmp_path):
    half = cached("some/half", native_folder("glm", tmp_path / "glm"), whole=False)
    (half / "model.safetensors").rename(half / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (half / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    cut = cached("some/cut", tmp_path / "glm")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    bases = found(root)
    assert (bases["some/half"].problem.code, bases["some/half"].whole) == ("base-incomplete", False)
    assert bases["some/half"].problem.params["file"] == "model-00002-of-00002.safetensors"
    assert bases["some/cut"].problem.code == "shard-unreadable"


def test_a_folder_that_no_client_would_make_does_no_harm(root, tmp_path):
    cached("some/bad--name", native_folder("glm", tmp_path / "glm"))
    assert list(found(root)) == ["embedded", "some/bad--name"]


def test_memory_that_another_base_holds_counts(root, monkeypatch):
    monkeypatch.setattr("glmstudio.models.inspection.library.free_memory", lambda device: 0)
    assert set(found(root)["embedded"].fits.values()) == {"nothing"}
    assert set(found(root, held=2**31)["embedded"].fits.values()) == {"train"}


def test_the_list_of_used_bases(root):
    assert remembered(root) == []
    for source in ("a/b", "/models/x", "a/b"):
        remember(root, source)
    assert remembered(root) == ["a/b", "/models/x"]
    for number in range(60):
        remember(root, f"a/{number}")
    assert (len(remembered(root)), remembered(root)[0]) == (50, "a/59")
    assert [path.name for path in (root / "data").iterdir()] == ["bases.json"]
    for text in ("{", '{"a": 1}', '[1, "a/b"]'):
        (root / "data" / "bases.json").write_text(text, encoding="utf-8")
        assert remembered(root) == (["a/b"] if "a/b" in text else [])


def test_ten_large_models_are_listed_at_once(root, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 60}', encoding="utf-8")
    names = [f"model.layers.{layer}.part{part}.weight" for layer in range(60) for part in range(10)]
    files = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
    for number, file in enumerate(files):
        save_file({name: torch.zeros(2, 2) for name in names[number::4]}, model / file)
    weight_map = {name: files[index % 4] for index, name in enumerate(names)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    for number in range(10):
        cached(f"some/model{number}", model)
    start = time.process_time()
    assert len(found(root)) == 11
    assert time.process_time() - start < 0.5
