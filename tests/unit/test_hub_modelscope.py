"""Downloads from ModelScope through a stand-in for its client, with the client's names, calls and manners."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.hubs import hub
from glmstudio.models.hubs.hub_modelscope import kept_folders

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(4000),
    "modeling_some.py": b"x",
    "sub/model.safetensors": b"y",
}
WHERE = {"source": "some/model", "endpoint": "https://www.modelscope.cn"}


class Client(ModuleType):
    """`modelscope_hub` as far as a download asks: files of one model, in steps of 1000 bytes; three tries a file."""

    class HubError(Exception):
        pass

    class NotExistError(HubError):
        pass

    class PermissionDeniedError(HubError):
        pass

    class AuthenticationError(HubError):
        pass

    class FileIntegrityError(HubError):
        pass

    class FileDownloadError(HubError):
        failed_files: dict

    def __init__(self, folder: Path) -> None:
        super().__init__("modelscope_hub")
        self.folder, self.failure, self.down, self.asked = folder, None, False, []

    def get_default_config(self) -> SimpleNamespace:
        return SimpleNamespace(endpoint=WHERE["endpoint"])

    def HubApi(self) -> "Client":
        return self

    def list_repo_files(self, name: str, kind: str) -> list[SimpleNamespace]:
        if self.down:
            raise OSError("no route")
        if name != "some/model":
            raise self.NotExistError("404")
        return [SimpleNamespace(path=path, size=len(data), sha256=None) for path, data in FILES.items()]

    def download_repo(self, name, kind, *, allow_patterns, progress_callbacks) -> Path:
        self.asked.append(list(allow_patterns))
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in allow_patterns:
            for _ in range(1 if self.failure is None else 3):
                counters = [counting(path, len(FILES[path])) for counting in progress_callbacks]
                for start in range(0, len(FILES[path]), 1000):
                    for counter in counters:
                        counter.update(len(FILES[path][start : start + 1000]))
            if self.failure is not None:
                error = self.FileDownloadError("1 of 2")
                error.failed_files = {path: self.failure}
                raise error
            (self.folder / path).write_bytes(FILES[path])
        return self.folder


@pytest.fixture
def client(tmp_path, monkeypatch) -> Client:
    client = Client(tmp_path / "models" / "some--model" / "snapshots" / "master")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "modelscope_hub", client)
    return client


def refusal(source: str = "modelscope:some/model", **options) -> tuple[str, dict]:
    with pytest.raises(StudioError) as caught:
        hub.fetch(source, **options)
    return caught.value.code, caught.value.params


def test_the_data_comes_with_every_byte_counted(client, monkeypatch):
    seen = []
    folder = hub.fetch("modelscope:some/model", on_progress=lambda *count: seen.append(count))
    assert folder == client.folder
    assert client.asked == [["config.json", "model.safetensors"]]
    assert (seen[0], seen[-1]) == ((0, 4002, ""), (4002, 4002, "model.safetensors"))
    monkeypatch.setenv("GLMSTUDIO_HUB", "modelscope")
    assert hub.fetch("some/model") == folder
    assert len(client.asked) == 1


def test_only_what_is_absent_is_asked_for(client):
    hub.fetch("modelscope:some/model")
    (client.folder / "model.safetensors").write_bytes(b"short")
    seen = []
    hub.fetch("modelscope:some/model", on_progress=lambda *count: seen.append(count))
    assert client.asked[1] == ["model.safetensors"]
    assert seen[0] == (2, 4002, "")


def test_a_stop(client):
    seen = [0]
    code, params = refusal(on_progress=lambda count, *_: seen.append(count), should_stop=lambda: seen[-1] > 1500)
    assert (code, params) == ("download-stopped", {"source": "modelscope:some/model"})
    assert seen[-1] < 4002


def test_what_goes_wrong_on_the_way(client):
    client.failure = client.FileIntegrityError("hash mismatch")
    seen = []
    code, params = refusal(on_progress=lambda *count: seen.append(count))
    assert (code, params) == ("download-checksum", WHERE | {"file": "config.json", "reason": "hash mismatch"})
    assert max(row[0] for row in seen) <= 4002
    client.failure = client.PermissionDeniedError("403")
    assert refusal() == ("hub-gated", WHERE)
    client.failure = OSError("cut")
    assert refusal() == ("download-broken", WHERE | {"reason": "cut"})


def test_what_cannot_be_had(client):
    assert refusal("modelscope:some/other") == ("hub-unknown", WHERE | {"source": "some/other"})
    client.down = True
    assert refusal() == ("hub-unreachable", WHERE | {"reason": "no route"})
    client.down = False
    folder = hub.fetch("modelscope:some/model")
    client.down = True
    assert hub.fetch("modelscope:some/model") == folder


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    assert refusal() == ("modelscope-missing", {"source": "some/model"})


def test_models_in_the_cache_of_both_clients(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    assert kept_folders() == {}
    folders = {
        "a/new.name": tmp_path / "models" / "a--new.name" / "snapshots" / "master",
        "b/old.name": tmp_path / "models" / "b" / "old___name",
        "c/older": tmp_path / "hub" / "models" / "c" / "older",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
    assert kept_folders() == folders
    assert hub.kept("modelscope:b/old.name") == folders["b/old.name"]
    assert hub.kept("modelscope:b/other") is None
