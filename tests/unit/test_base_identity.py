"""Which base something is: weights known by content, sources that hold everywhere, adapters of another base."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glmstudio.errors import StudioError
from glmstudio.models import sources
from glmstudio.models.adapters.adapter_base import base_doubt
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base_names import absolute, other_weights, same_base, same_source
from glmstudio.models.exporting.export import export
from glmstudio.models.fingerprint import fingerprint
from glmstudio.models.loading import load_base
from glmstudio.models.sources import local_folder
from tests.unit.export_cases import chatglm_folder, random_adapter


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return chatglm_folder(tmp_path_factory.mktemp("base") / "first")


@pytest.fixture(scope="module")
def other(folder, tmp_path_factory) -> Path:
    """The same shapes with other numbers in one layer, as a fine-tuned copy has them."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "second")
    state = load_file(copy / "model.safetensors")
    state["transformer.layers.1.mlp.dense_h_to_4h.weight"] += 1e-3
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Path:
    """As training writes it: the record tells the base by name and content."""
    made = random_adapter(folder, tmp_path_factory.mktemp("adapter") / "best", style="instruction")
    record = made / "glmstudio.json"
    facts = json.loads(record.read_text()) | {"base_fingerprint": fingerprint(folder), "base_name": "first"}
    record.write_text(json.dumps(facts))
    return made


def refusal(*arguments) -> StudioError:
    with pytest.raises(StudioError) as caught:
        load_adapter(*arguments)
    return caught.value


def test_weights_are_known_behind_every_name_and_cut(folder: Path, other: Path, tmp_path: Path) -> None:
    own = fingerprint(folder)
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy")) == own
    assert load_base(folder, device="cpu", dtype="bf16").fingerprint == own
    state = load_file(folder / "model.safetensors")
    shards, pickled = tmp_path / "shards", tmp_path / "pickled"
    for place in (shards, pickled):
        place.mkdir()
    names = sorted(state)
    weight_map = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: state[name] for name in names if weight_map[name] == file}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save(state, pickled / "pytorch_model.bin")
    assert fingerprint(shards) == fingerprint(pickled) == own
    assert other_weights(own, fingerprint(other))
    halves = {name: value.half() for name, value in state.items()}
    save_file(halves, pickled / "model.safetensors")
    # Another form: whether that is the same base cannot be told.
    assert fingerprint(pickled) != own
    assert not other_weights(own, fingerprint(pickled))


def test_weights_are_read_again_only_where_their_files_changed(folder: Path, tmp_path: Path, monkeypatch) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = fingerprint(copy)
    with monkeypatch.context() as patch:
        patch.setattr("glmstudio.models.fingerprint.tensors", None)
        assert fingerprint(copy) == before
    state = load_file(copy / "model.safetensors")
    state[min(state)] += 1
    save_file(state, copy / "model.safetensors")
    assert fingerprint(copy) != before


def test_sources_hold_in_every_working_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "m" / "llama").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "m" / "llama")
    monkeypatch.chdir(tmp_path)
    whole = str(tmp_path / "m" / "llama")
    for written in ("m/llama", "m/llama/", "./m/llama", "elsewhere/../m/llama", whole):
        assert absolute(written) == whole
        assert same_source(written, whole)
    assert same_source("link", whole)
    assert not same_source("embedded", whole)
    assert not same_source("a/b", "a/c")
    assert absolute("THUDM/chatglm-6b") == "THUDM/chatglm-6b"
    assert absolute("embedded") == "embedded"
    # A folder was meant that has moved: no hub is asked for it.
    with pytest.raises(StudioError) as caught:
        local_folder("m/moved")
    assert (caught.value.code, caught.value.params["folder"]) == ("base-not-in-folder", str(tmp_path / "m"))
    for gone in ("./gone", "m/a/b", "../gone", str(tmp_path / "gone")):
        with pytest.raises(StudioError) as caught:
            local_folder(gone)
        assert caught.value.code == "base-missing"
    assert local_folder("THUDM/chatglm-6b") is local_folder("huggingface:m/moved") is None
    monkeypatch.setattr(sources.hub, "kept", lambda source: tmp_path)
    assert local_folder("m/moved") is None


def test_one_base_by_content_or_else_by_name() -> None:
    assert same_base(("/old/place", "a-1"), ("/new/name", "a-1"))
    assert not same_base(("/same", "a-1"), ("/same", "a-2"))
    # Full precision and half, or a run of before the fingerprints.
    assert same_base(("/x/qwen", "a-1"), ("Qwen/qwen", "b-1"))
    assert not same_base(("/x/qwen", ""), ("/x/llama", "b-1"))


def test_an_adapter_is_refused_on_other_weights_of_the_same_shapes(folder, other, adapter, tmp_path) -> None:
    error = refusal(load_base(other, device="cpu", dtype="fp32"), adapter)
    assert error.code == "adapter-other-weights"
    assert error.params["trained_on"] == str(folder)
    assert error.params["source"] == str(other)
    for kind in ("merged", "adapter"):
        with pytest.raises(StudioError) as caught:
            export(kind, tmp_path / kind, base_source=str(other), adapter=adapter, device="cpu")
        assert caught.value.code == "adapter-other-weights"
        assert not (tmp_path / kind).exists()
    moved = shutil.copytree(folder, tmp_path / "moved")
    load_adapter(load_base(moved, device="cpu", dtype="fp32"), adapter)
    assert base_doubt(adapter, str(moved), fingerprint(moved)) is None


def test_names_are_told_where_the_content_cannot_tell(folder, other, adapter, tmp_path) -> None:
    plain = shutil.copytree(adapter, tmp_path / "plain", ignore=shutil.ignore_patterns("glmstudio.json"))
    load_adapter(load_base(other, device="cpu", dtype="fp32"), plain)
    doubt = base_doubt(plain, str(other), fingerprint(other))
    assert (doubt.code, doubt.params["trained_on"], doubt.params["source"]) == (
        "base-named-otherwise", str(folder), str(other),
    )  # fmt: skip
    assert base_doubt(plain, f"/elsewhere/{folder.name}{os.sep}", "") is None


def test_the_card_keeps_the_recorded_base(folder, adapter, tmp_path) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    result = export("adapter", tmp_path / "out", base_source=str(moved), adapter=adapter)
    assert result.doubt is None
    assert "base_model: first\n" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "glmstudio.json").read_text())["base"] == "first"
