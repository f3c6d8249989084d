"""From a hub id to a folder and a base, against a server that answers as the hub does."""

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from huggingface_hub import constants

from glmstudio.errors import StudioError
from glmstudio.models.hubs import hub
from glmstudio.models.loading import load_base
from tests.fake_hub import COMMIT, FakeHub, fake_hub
from tests.unit.golden_cases import CHATGLM

INDEX, FIRST, SECOND = "pytorch_model.bin.index.json", *(f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2))
WEIGHTS = bytes(range(256)) * 8192  # 2 MiB
DISK = namedtuple("DISK", "total used free")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub of this test, in the place of the real one; the cache is a folder of the test."""
    with fake_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        server.models["some/model"] = {
            "config.json": b'{"model_type": "llama"}',
            "model.safetensors": WEIGHTS,
            "tokenizer.model": b"pieces",
            "modeling_some.py": b"raise SystemExit",
            "pytorch_model.bin": WEIGHTS[::-1],
            "original/consolidated.safetensors": b"twice",
        }
        yield server


def blobs(name: str = "some/model") -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"


def refusal(source: str, **options) -> StudioError:
    with pytest.raises(StudioError) as caught:
        hub.fetch(source, **options)
    return caught.value


def test_the_data_comes_and_no_code(server):
    folder = hub.fetch("some/model")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.name == COMMIT
    blob = blobs() / hashlib.sha256(WEIGHTS).hexdigest()
    assert (folder / "model.safetensors").resolve() == blob.resolve()


def test_a_model_in_pickled_shards_becomes_a_base(server):
    server.models["some/chatglm"] = {
        name: (CHATGLM / name).read_bytes() for name in ("config.json", INDEX, FIRST, SECOND)
    }
    seen = []
    base = load_base("some/chatglm", device="cpu", dtype="fp32", on_download=lambda *count: seen.append(count))
    expected = load_base(CHATGLM, device="cpu", dtype="fp32").model.lm_head.weight
    assert base.source == "some/chatglm"
    assert seen[-1][0] == seen[-1][1] == sum(map(len, server.models["some/chatglm"].values()))
    assert base.model.lm_head.weight.equal(expected)


def test_every_byte_is_counted(server):
    seen: list[tuple[int, int, str]] = []
    hub.fetch("some/model", on_progress=lambda *count: seen.append(count))
    files = server.models["some/model"]
    total = sum(len(files[name]) for name in ("config.json", "model.safetensors", "tokenizer.model"))
    assert {row[1] for row in seen} == {total}
    assert [row[0] for row in seen] == sorted(row[0] for row in seen)
    assert (seen[0][0], seen[-1][0]) == (0, total)
    assert sum(row[2] == "model.safetensors" for row in seen) >= 8
    seen.clear()
    hub.fetch("some/model", on_progress=lambda *count: seen.append(count))
    assert {row[0] for row in seen} == {total}


def test_a_connection_that_breaks_is_taken_up_again(server):
    server.cut_after["model.safetensors"] = 1_000_000
    folder = hub.fetch("some/model")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    asked = [int(start) for name, start in server.ranges if name == "model.safetensors"]
    assert asked[0] == 0
    assert 500_000 < asked[1] <= 1_000_000


def test_a_stop_keeps_what_came(server):
    done = [0]
    error = refusal(
        "some/model", on_progress=lambda count, *_: done.append(count), should_stop=lambda: done[-1] > 1_000_000
    )
    assert (error.code, error.params) == ("download-stopped", {"source": "some/model"})
    part = blobs() / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part"
    came = part.stat().st_size
    assert 0 < came < len(WEIGHTS)
    assert not list(blobs().parent.rglob("model.safetensors"))
    assert not (blobs().parent / "refs").exists()
    server.ranges.clear()
    folder = hub.fetch("some/model")
    assert ("model.safetensors", str(came)) in server.ranges
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(blobs().glob("*.part"))


def test_a_server_without_ranges_begins_anew(server):
    server.no_ranges = True
    server.cut_after["model.safetensors"] = 1_000_000
    seen = []
    folder = hub.fetch("some/model", on_progress=lambda *count: seen.append(count))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert seen[-1][0] == seen[-1][1]


def test_other_content_than_the_hub_says_gets_no_name(server):
    server.damaged.add("model.safetensors")
    error = refusal("some/model")
    assert (error.code, error.params["file"]) == ("download-checksum", "model.safetensors")
    assert hashlib.sha256(WEIGHTS).hexdigest() in error.params["reason"]
    assert not [path for path in blobs().parent.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)]
    server.damaged.clear()
    assert (hub.fetch("some/model") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_was_cut_short_in_the_cache_comes_again(server):
    path = hub.fetch("some/model") / "model.safetensors"
    path.resolve().write_bytes(WEIGHTS[:1000])
    hub.fetch("some/model")
    assert path.read_bytes() == WEIGHTS


def test_an_unknown_id_and_a_gated_one(server):
    for source in ("some/other", "some/bad--name"):
        error = refusal(source)
        assert (error.code, error.params) == ("hub-unknown", {"source": source, "endpoint": server.endpoint})
    server.gated.add("some/model")
    assert refusal("some/model").code == "hub-gated"
    assert not (blobs().parent / "refs").exists()


def test_a_model_without_weights_or_with_half_of_them(server):
    server.models["some/adapter"] = {"config.json": b"{}", "adapter_model.safetensors": b"x"}
    assert refusal("some/adapter").code == "base-no-weights"
    index = json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode()
    server.models["some/half"] = {"config.json": b"{}", INDEX: index, FIRST: b"x"}
    error = refusal("some/half")
    assert (error.code, error.params) == ("base-incomplete", {"folder": "some/half", "file": SECOND})


def test_a_disk_that_is_too_small_is_told_before(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DISK(100, 99, 1))
    error = refusal("some/model")
    assert error.code == "disk-small"
    assert server.ranges == []


def test_without_a_network(server, monkeypatch):
    folder = hub.fetch("some/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch("some/model") == folder
    error = refusal("some/other")
    assert error.code == "hub-unreachable"
    assert "HF_HUB_OFFLINE" in error.params["reason"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert hub.fetch("some/model") == folder
    assert refusal("some/other").code == "hub-unreachable"


def test_a_server_that_goes_away(server: FakeHub, monkeypatch):
    monkeypatch.setattr("glmstudio.models.hubs.hub_huggingface.TRIES_WITHOUT_A_BYTE", 0)
    server.cut_after["model.safetensors"] = 0
    error = refusal("some/model")
    assert (error.code, error.params["source"]) == ("download-broken", "some/model")
    assert error.params["reason"]
    assert (hub.fetch("some/model") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_token_goes_to_the_hub_and_to_nobody_else(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch("some/model")
    assert {token for path, token in server.tokens if not path.startswith("/cdn/")} == {"Bearer hf_secret"}
    assert {token for path, token in server.tokens if path.startswith("/cdn/")} == {None}


def test_a_mirror_that_lists_no_sizes(server):
    server.sizes_listed = False
    for _ in range(2):
        assert (hub.fetch("some/model") / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("environment", "source", "expected"),
    [
        ({}, "a/b", ("huggingface", "a/b")),
        ({}, "modelscope:a/b", ("modelscope", "a/b")),
        ({"GLMSTUDIO_HUB": "modelscope"}, "a/b", ("modelscope", "a/b")),
        ({"USE_MODELSCOPE_HUB": "1"}, "a/b", ("modelscope", "a/b")),
        ({"USE_MODELSCOPE_HUB": "0"}, "a/b", ("huggingface", "a/b")),
        ({"USE_MODELSCOPE_HUB": "1"}, "huggingface:a/b", ("huggingface", "a/b")),
    ],
)
def test_which_hub(monkeypatch, environment, source, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub.is_hub_id(source)
    assert hub.hub_and_name(source) == expected


@pytest.mark.parametrize("source", ["embedded", "a/b/c", "./a", "C:\\models", "modelscope:a", "other:a/b"])
def test_what_is_no_hub_id(source):
    assert not hub.is_hub_id(source)
