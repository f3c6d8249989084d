"""Probes in the background: once for each kind of adapter, none while a run trains, none of a base that is gone."""

import dataclasses
import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio.base_slot import Use
from glmstudio.studio.probes import Probing
from glmstudio.training import probe as probe_module
from tests.tiny_base import tiny_base

LORA, SETTINGS, MOST = LoraSettings(r=4), TrainingSettings(), 1000


@pytest.fixture
def probes(monkeypatch):
    """What was probed, and the leave to end each probe."""
    made, leave = [], threading.Semaphore(0)

    def probe(resident, lora, settings, *, most, should_stop):
        leave.acquire()
        if should_stop():
            return None
        made.append(lora.r)
        return f"probe of {lora.r}"

    monkeypatch.setattr(probe_module, "probe", probe)
    return made, leave


def probing_of(resident: Resident, busy: Callable[[], bool] = lambda: False) -> Probing:
    return Probing(lambda: nullcontext(Use(resident, lambda: False, None)), busy)


def settle(probing: Probing) -> None:
    if (thread := probing._thread) is not None:
        thread.join(600)


def test_a_kind_is_measured_once_and_other_settings_do_not_matter(probes):
    made, leave = probes
    resident = Resident(tiny_base())
    probing = probing_of(resident)
    assert probing.ask(resident, LORA, SETTINGS, MOST) is None
    leave.release()
    settle(probing)
    other = dataclasses.replace(SETTINGS, learning_rate=1e-3, num_train_epochs=9)
    assert probing.ask(resident, LORA, other, MOST) == "probe of 4"
    assert (made, probing.count) == ([4], 1)


def test_the_newest_wish_counts_and_a_new_base_begins_anew(probes):
    made, leave = probes
    resident = Resident(tiny_base())
    probing = probing_of(resident)
    probing.ask(resident, LORA, SETTINGS, MOST)
    probing.ask(resident, LoraSettings(r=8), SETTINGS, MOST)
    leave.release(2)
    settle(probing)
    assert probing.ask(resident, LoraSettings(r=8), SETTINGS, MOST) == "probe of 8"
    assert made[-1] == 8
    leave.release(2)
    assert probing.ask(Resident(tiny_base()), LoraSettings(r=8), SETTINGS, MOST) is None
    settle(probing)


def test_a_probe_ends_with_its_base_and_keeps_none_of_it(probes):
    made, leave = probes
    going = threading.Event()
    resident = Resident(tiny_base())
    probing = Probing(lambda: nullcontext(Use(resident, going.is_set, None)), lambda: False)
    probing.ask(resident, LORA, SETTINGS, MOST)
    going.set()
    leave.release()
    settle(probing)
    assert (made, probing.count, probing.active) == ([], 0, False)


def test_without_a_base_the_wish_is_given_up(probes):
    @contextmanager
    def nothing():
        raise StudioError("base-loading", source="x")
        yield

    probing = Probing(nothing, lambda: False)
    assert probing.ask(Resident(tiny_base()), LORA, SETTINGS, MOST) is None
    settle(probing)
    assert not probing.active


def test_nothing_is_measured_while_a_run_trains(probes):
    made, leave = probes
    trains = threading.Event()
    resident = Resident(tiny_base())
    probing = probing_of(resident, trains.is_set)
    trains.set()
    assert probing.ask(resident, LORA, SETTINGS, MOST) is None
    assert probing._thread is None
    trains.clear()
    probing.ask(resident, LORA, SETTINGS, MOST)
    trains.set()
    leave.release()
    settle(probing)
    assert made == []
    assert probing.count == 0
