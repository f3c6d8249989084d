"""Choosing another base: a damaged one is refused, one of a hub is downloaded first, a run keeps its base."""

import shutil

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.inspection.library import remembered
from glmstudio.studio.base_slot import BaseSlot, BaseWish, Download, further
from glmstudio.studio.bases import Fetching, ModelShelf, with_hub
from tests.tiny_families import native_folder
from tests.unit.golden_cases import CHATGLM2


def nothing() -> None:
    """Nothing stands against a switch."""


@pytest.fixture
def slot(tmp_path) -> BaseSlot:
    made = BaseSlot(BaseWish(str(native_folder("llama", tmp_path / "llama")), "cpu", "fp32"))
    made.load()
    made.resident(wait=True)
    return made


def test_a_folder_is_used_and_remembered(slot, tmp_path):
    shelf = ModelShelf(tmp_path, slot, nothing)
    shelf.use(str(native_folder("glm", tmp_path / "glm")), "none")
    assert slot.resident(wait=True).base.family.name == "glm"
    assert remembered(tmp_path) == [str(tmp_path / "glm")]
    assert str(tmp_path / "glm") in [base.source for base in shelf.bases()]
    shelf.use(str(tmp_path / "glm"), "8bit")
    assert slot.resident(wait=True).base.quantization == "8bit"


def test_a_damaged_folder_is_refused_and_the_resident_base_stays(slot, tmp_path):
    resident = slot.resident()
    (tmp_path / "broken").mkdir()
    shutil.copy(CHATGLM2 / "config.json", tmp_path / "broken")
    shelf = ModelShelf(tmp_path, slot, nothing)
    for source, code in ((tmp_path / "broken", "base-no-weights"), (tmp_path / "nowhere", "base-missing")):
        with pytest.raises(StudioError) as caught:
            shelf.use(str(source), "none")
        assert caught.value.code == code
    assert slot.resident() is resident


def test_a_run_keeps_its_base(slot, tmp_path):
    def training() -> None:
        raise StudioError("run-active", run="run-0001")

    resident = slot.resident()
    with pytest.raises(StudioError, match="run-active"):
        ModelShelf(tmp_path, slot, training).use(str(native_folder("glm", tmp_path / "glm")), "none")
    assert slot.resident() is resident


def test_while_a_download_fails_the_resident_base_stays(slot, tmp_path, monkeypatch):
    def broken(source, *, on_progress, should_stop):
        on_progress(30, 100, "model.safetensors")
        raise StudioError("hub-unreachable", source=source, endpoint="here", reason="no route")

    monkeypatch.setattr("glmstudio.models.hubs.hub.fetch", broken)
    resident = slot.resident()
    shelf = ModelShelf(tmp_path, slot, nothing)
    shelf.use("owner/name", "none")
    shelf.close(600)
    found = shelf.fetching()
    assert (found.state, found.source, found.error.code) == ("failed", "owner/name", "hub-unreachable")
    assert (found.download.done, found.download.total) == (30, 100)
    assert slot.resident() is resident


def test_the_time_left_follows_what_came_in_this_download(monkeypatch):
    now = iter((100.0, 110.0))
    monkeypatch.setattr("glmstudio.studio.base_slot.time.monotonic", lambda: next(now))
    first = further(None, 40, 100)
    assert first.seconds_left is None
    assert further(first, 60, 100).seconds_left == pytest.approx(20.0)
    assert Fetching().download is None
    assert Download(1, 1, 0.0, 1).seconds_left is None


def test_a_hub_is_written_before_a_bare_id_only(tmp_path):
    assert with_hub("owner/name", "huggingface") == "owner/name"
    assert with_hub("owner/name", "modelscope") == "modelscope:owner/name"
    assert with_hub("huggingface:owner/name", "modelscope") == "huggingface:owner/name"
    assert with_hub(str(tmp_path), "modelscope") == str(tmp_path)
