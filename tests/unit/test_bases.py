"""Choosing another base: a damaged one is refused, one of a hub is downloaded first, a run keeps its base."""

import shutil

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.used_bases import remembered
from glmstudio.studio.base_slot import BaseSlot, BaseWish
from glmstudio.studio.bases import ModelShelf, slot_of, with_hub
from glmstudio.studio.jobs import Jobs
from tests.tiny_families import native_folder
from tests.unit.golden_cases import CHATGLM2
from tests.unit.test_jobs import ended


def nothing() -> None:
    """Nothing stands against a switch."""


@pytest.fixture
def slot(tmp_path) -> BaseSlot:
    made = slot_of(tmp_path, BaseWish(str(native_folder("llama", tmp_path / "llama")), "cpu", "fp32"))
    made.load()
    made.resident(wait=True)
    return made


def test_a_folder_is_used_and_remembered(slot, tmp_path):
    shelf = ModelShelf(tmp_path, slot, Jobs(), nothing)
    shelf.use(str(native_folder("glm", tmp_path / "glm")), "none")
    assert slot.resident(wait=True).base.family.name == "glm"
    assert remembered(tmp_path) == [str(tmp_path / "glm"), str(tmp_path / "llama")]
    assert str(tmp_path / "glm") in [base.source for base in shelf.bases()]
    shelf.use(str(tmp_path / "glm"), "8bit")
    assert slot.resident(wait=True).base.quantization == "8bit"


def test_a_damaged_folder_is_refused_and_the_resident_base_stays(slot, tmp_path):
    resident = slot.resident()
    (tmp_path / "broken").mkdir()
    shutil.copy(CHATGLM2 / "config.json", tmp_path / "broken")
    shelf = ModelShelf(tmp_path, slot, Jobs(), nothing)
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
        ModelShelf(tmp_path, slot, Jobs(), training).use(str(native_folder("glm", tmp_path / "glm")), "none")
    assert slot.resident() is resident


def test_while_a_download_fails_the_resident_base_stays(slot, tmp_path, monkeypatch):
    def broken(source, *, on_progress, should_stop):
        on_progress(30, 100, "model.safetensors")
        raise StudioError("hub-unreachable", source=source, endpoint="here", reason="no route")

    monkeypatch.setattr("glmstudio.models.hubs.hub.fetch", broken)
    resident = slot.resident()
    jobs = Jobs()
    shelf = ModelShelf(tmp_path, slot, jobs, nothing)
    shelf.use("owner/name", "none")
    found = ended(jobs, "download")
    assert (found.state, found.subject, found.error.code) == ("failed", {"source": "owner/name"}, "hub-unreachable")
    assert (found.done, found.total) == (30, 100)
    assert slot.resident() is resident
    shelf.use(str(native_folder("glm", tmp_path / "glm")), "none")
    assert jobs.all() == []


def test_a_hub_is_written_before_a_bare_id_only(tmp_path):
    assert with_hub("owner/name", "huggingface") == "owner/name"
    assert with_hub("owner/name", "modelscope") == "modelscope:owner/name"
    assert with_hub("huggingface:owner/name", "modelscope") == "huggingface:owner/name"
    assert with_hub(str(tmp_path), "modelscope") == str(tmp_path)
