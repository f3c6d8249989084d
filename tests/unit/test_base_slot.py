"""One resident base at a time: loading, failing, switching."""

import gc
import weakref

import pytest

from glmstudio.errors import StudioError
from glmstudio.models import loading
from glmstudio.studio.base_slot import BaseSlot, BaseWish
from tests.tiny_families import native_folder


@pytest.fixture
def slot(tmp_path) -> BaseSlot:
    made = BaseSlot(BaseWish(str(native_folder("llama", tmp_path / "llama")), "cpu", "fp32"))
    made.load()
    made.resident(wait=True)
    return made


def test_before_it_is_loaded_there_is_a_reason(tmp_path):
    slot = BaseSlot(BaseWish(str(tmp_path)))
    assert slot.status().state == "loading"
    with pytest.raises(StudioError, match="base-loading"):
        slot.resident()


def test_a_switch_lets_go_of_the_former_base_first(slot, tmp_path):
    former = weakref.ref(slot.resident().base.model)
    assert slot.status().family == "llama"
    slot.switch(BaseWish(str(native_folder("glm", tmp_path / "glm")), "cpu", "fp32"))
    assert slot.resident(wait=True).base.family.name == "glm"
    gc.collect()
    assert former() is None
    assert slot.status().state == "ready"


def test_a_load_behind_a_switch_and_a_second_one_change_nothing(slot, tmp_path):
    slot.switch(BaseWish(str(native_folder("glm", tmp_path / "glm")), "cpu", "fp32"))
    slot.load()
    slot.load()
    assert slot.resident(wait=True).base.family.name == "glm"


def test_a_base_that_is_used_goes_when_the_last_use_ends(slot, tmp_path):
    native_folder("glm", tmp_path / "glm")
    with slot.use() as one:
        with slot.use() as other:
            assert not one.leaving()
            slot.switch(BaseWish(str(tmp_path / "glm"), "cpu", "fp32"))
            assert one.leaving()
            assert other.leaving()
            with pytest.raises(StudioError, match="base-loading"), slot.use():
                pass
            with slot.use_if_ready() as none:
                assert none is None
        assert slot.status().state == "loading"
        assert one.resident.base.family.name == "llama"
    with slot.use(wait=True, refusal=StudioError("run-active", run="run-0007")) as new:
        assert new.resident.base.family.name == "glm"
        assert not new.leaving()
        for ask in (slot.switch, lambda wish: slot.refuse_switch(lambda: None)):
            with pytest.raises(StudioError) as told:
                ask(BaseWish(str(tmp_path / "llama")))
            assert told.value.params == {"run": "run-0007"}
    assert slot.wish.source == str(tmp_path / "glm")


def test_a_failure_keeps_nothing_of_what_was_loaded_so_far(tmp_path, monkeypatch):
    class Weights:
        pass

    seen = []

    def broken(*_: object, **__: object) -> None:
        weights = Weights()
        seen.append(weakref.ref(weights))
        raise StudioError("base-missing", source="x") from ValueError(weights and "why")

    monkeypatch.setattr(loading, "load_base", broken)
    slot = BaseSlot(BaseWish("x"))
    slot.load()
    for _ in range(2):
        with pytest.raises(StudioError, match="base-missing"):
            slot.resident(wait=True)
    gc.collect()
    assert seen[0]() is None


def test_a_base_can_be_quantised(slot, tmp_path):
    full = slot.status()
    assert full.quantization == "none"
    assert 4 * full.parameters <= full.weight_bytes < 4.1 * full.parameters
    slot.switch(BaseWish(str(tmp_path / "llama"), "cpu", "fp32", "8bit"))
    assert slot.resident(wait=True).base.quantization == "8bit"
    small = slot.status()
    assert (small.quantization, small.parameters) == ("8bit", full.parameters)
    assert small.weight_bytes < 0.8 * full.weight_bytes


def test_after_a_failure_another_base_can_be_taken(slot, tmp_path):
    slot.switch(BaseWish(str(tmp_path / "nothing")))
    with pytest.raises(StudioError, match="base-missing"):
        slot.resident(wait=True)
    assert slot.status().error.code == "base-missing"
    slot.switch(BaseWish(str(tmp_path / "llama"), "cpu", "fp32"))
    assert slot.resident(wait=True).base.family.name == "llama"


def test_the_last_of_several_wishes_wins(slot, tmp_path):
    for name in ("glm", "qwen2"):
        native_folder(name, tmp_path / name)
    slot.switch(BaseWish(str(tmp_path / "glm"), "cpu", "fp32"))
    slot.switch(BaseWish(str(tmp_path / "qwen2"), "cpu", "fp32"))
    assert slot.resident(wait=True).base.family.name == "qwen2"
    assert slot.wish.source == str(tmp_path / "qwen2")
