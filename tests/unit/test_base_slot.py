"""One resident base at a time: loading, failing, switching."""

import gc
import threading
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
    assert slot.status().state == "released"
    with pytest.raises(StudioError, match="base-released"):
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


def let_go_of(slot: BaseSlot) -> None:
    slot.release()
    for thread in threading.enumerate():
        if thread.name == "release base":
            thread.join(600)


def test_a_base_that_is_let_go_is_gone_and_comes_when_it_is_needed(slot):
    former, before = weakref.ref(slot.resident().base.model), slot.status()
    let_go_of(slot)
    assert former() is None
    after = slot.status()
    assert (after.state, after.memory_bytes, after.weight_bytes) == ("released", 0, 0)
    assert (after.source, after.fingerprint, after.parameters) == (before.source, before.fingerprint, before.parameters)
    # Looks do not bring it back.
    with slot.use_if_ready() as none:
        assert none is None
    with pytest.raises(StudioError, match="base-released"):
        slot.resident()
    assert slot.status().state == "released"
    with slot.use(load=True) as use:
        assert use.resident.base.family.name == "llama"
    assert slot.status().state == "ready"


def test_who_uses_a_base_that_is_let_go_is_waited_for(slot, tmp_path):
    with slot.use(refusal=StudioError("run-active", run="run-0007")), pytest.raises(StudioError, match="run-active"):
        slot.release()
    with slot.use() as use:
        model = weakref.ref(use.resident.base.model)
        slot.release()
        assert use.leaving()
        # Another one that is chosen now waits as well: two are never there.
        slot.switch(BaseWish(str(native_folder("glm", tmp_path / "glm")), "cpu", "fp32"))
        assert (slot.status().state, model() is not None) == ("loading", True)
    assert slot.resident(wait=True).base.family.name == "glm"
    del use
    gc.collect()
    assert model() is None


def test_a_reload_is_for_the_base_that_was_let_go_of(slot, tmp_path, monkeypatch):
    """Whoever needed that one gets no other, and may stop waiting."""
    native_folder("glm", tmp_path / "glm")
    load, begun, may = loading.load_base, threading.Event(), threading.Event()

    def slow(*values: object, **wish: object) -> object:
        begun.set()
        assert may.wait(600)
        return load(*values, **wish)

    monkeypatch.setattr(loading, "load_base", slow)
    let_go_of(slot)
    with pytest.raises(StudioError, match="base-wait-stopped"):
        slot.resident(load=True, should_stop=begun.is_set)
    told: list[str] = []

    def needed() -> None:
        try:
            slot.resident(load=True)
        except StudioError as error:
            told.append(error.code)

    waiting = threading.Thread(target=needed)
    waiting.start()
    slot.switch(BaseWish(str(tmp_path / "glm"), "cpu", "fp32"))
    # One that a person has chosen and that is on its way is nobody's to wait for.
    with pytest.raises(StudioError, match="base-loading"):
        slot.resident(load=True)
    may.set()
    waiting.join(600)
    assert slot.resident(wait=True).base.family.name == "glm"
    assert told == ["base-loading"]


def test_a_base_on_its_way_can_be_let_go(slot, tmp_path, monkeypatch):
    begun, may = threading.Event(), threading.Event()

    def slow(*_: object, should_stop: object, **__: object) -> object:
        begun.set()
        assert may.wait(600)
        raise StudioError("download-stopped", source="x")

    monkeypatch.setattr(loading, "load_base", slow)
    slot.switch(BaseWish(str(tmp_path / "glm")))
    assert begun.wait(600)
    slot.release()
    with pytest.raises(StudioError, match="base-released"):
        slot.resident()
    may.set()
    assert (slot.status().state, slot.status().source) == ("released", str(tmp_path / "glm"))
