"""A probe beside others: within the run's own memory, behind whoever asks or starts, and never in a run's way."""

import threading

import pytest
import torch

from glmstudio.errors import StudioError
from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.resident import Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from glmstudio.training import probe as probe_module
from glmstudio.training.estimate import estimate
from glmstudio.training.probe import extent, probe
from tests.tiny_base import tiny_base
from tests.train.runs import FAST

LORA = LoraSettings(r=4)


@pytest.fixture
def passes(monkeypatch):
    """The tokens of each pass that tells the pace, and what is done within it, by its number."""
    made, within, timed = [], {}, probe_module._timed

    def watched(model, batch, device):
        made.append(batch["tokens"])
        within.get(len(made), lambda: None)()
        return timed(model, batch, device)

    monkeypatch.setattr(probe_module, "_timed", watched)
    # However slow the machine is.
    monkeypatch.setattr(probe_module, "PATIENCE_SECONDS", 1e9)
    return made, within


def queued(resident: Resident, work) -> threading.Thread:
    """`work` on a thread, once it waits for its turn."""
    thread = threading.Thread(target=work)
    thread.start()
    while not resident.gate._waiting:
        threading.Event().wait(0.001)
    return thread


def adapter_of(resident: Resident) -> list[torch.Tensor]:
    return [part for name, part in resident._peft.named_parameters() if ".lora_A.default" in name]


def test_a_probe_that_gets_its_turn_late_leaves_the_runs_adapter():
    resident, found = Resident(tiny_base()), []
    with resident.gate.turn():
        # Nobody tells it of the run.
        late = queued(resident, lambda: found.append(probe(resident, LORA, FAST, most=1000)))
        resident.begin_training(LORA)
        before = adapter_of(resident)
        resident.gate.let_others_in()
        late.join()
        assert found == [None]
        assert resident.in_training
        assert all(one is other for one, other in zip(adapter_of(resident), before, strict=True))
        resident.end_training()
    assert probe(resident, LORA, FAST, most=1000) is not None


def test_a_run_that_starts_within_a_pass_is_next(passes):
    made, within = passes
    resident, starts, adapters = Resident(tiny_base()), threading.Event(), []

    def run() -> None:
        with resident.gate.turn():
            resident.begin_training(LORA)
            adapters.extend(adapter_of(resident))

    def start() -> None:
        starts.set()
        threads.append(queued(resident, run))

    threads = []
    within[1] = start
    assert probe(resident, LORA, FAST, most=1000, should_stop=starts.is_set) is None
    threads[0].join()
    assert len(made) == 1
    assert resident.in_training
    assert adapters
    assert all(one is other for one, other in zip(adapter_of(resident), adapters, strict=True))


def test_a_question_within_a_pass_is_answered_before_the_next(passes):
    made, within = passes
    resident, answered, threads = Resident(tiny_base()), threading.Event(), []
    gate, seen = resident.gate, []
    # Between two tokens it comes back at once, however busy the machine is.
    gate._asked_again = lambda seconds: (
        gate._changed.wait_for(lambda: gate._waiting or answered.is_set()) and bool(gate._waiting)
    )

    def ask() -> None:
        settings = GenerationSettings(max_new_tokens=8, repetition_stop=0)
        rows = [Row([10, 11, 12, 13], "__base__")]
        seen.extend(len(made) for _ in generate(resident, rows, settings, should_stop=lambda: False))
        answered.set()
        with gate._changed:
            gate._changed.notify()

    within[2] = lambda: threads.append(queued(resident, ask))
    assert probe(resident, LORA, FAST, most=1000) is not None
    threads[0].join()
    assert len(made) == 4
    assert seen == [2] * len(seen) != []


@pytest.mark.parametrize("most", [30, 200, 500, 10**6])
def test_no_pass_has_more_tokens_than_the_run(passes, most):
    made, _ = passes
    resident = Resident(tiny_base())
    tokens, rows = extent(resident.base, most)
    assert 2 * tokens <= max(most, 32)
    assert probe(resident, LORA, FAST, most=most).both is not None
    assert max(made) <= max(tokens * rows, 32) <= max(most, 32)
    assert max(made) > 600 or most < 10**6


def test_where_memory_is_short_there_is_an_estimate_without_a_speed(passes, monkeypatch):
    _, within = passes
    resident, sizes = Resident(tiny_base()), [(40, 8)] * 16

    def short() -> None:
        raise MemoryError

    within[1] = short
    measured = [probe(resident, LORA, FAST, most=1000)]
    within.clear()
    # It is asked for before it runs out.
    monkeypatch.setattr(probe_module, "free_on", lambda device: 2**16)
    measured.append(probe(resident, LORA, FAST, most=1000))
    for one in measured:
        found = estimate(one, sizes, [], FAST, free=2**30)
        assert found.fits
        assert (found.seconds, one.forward, one.step) == (None, None, None)
    monkeypatch.undo()
    whole = estimate(probe(resident, LORA, FAST, most=1000), sizes, [], FAST, free=2**30)
    assert whole.seconds > 0
    for part in ("packed", "adapter", "activations", "logits", "cache", "token_budget"):
        assert getattr(whole, part) == getattr(found, part)


def test_where_not_even_a_first_pass_fits_that_is_said(monkeypatch):
    def short(*_):
        raise MemoryError

    resident = Resident(tiny_base())
    monkeypatch.setattr(probe_module, "target_loss", short)
    with pytest.raises(StudioError, match="probe-short"):
        probe(resident, LORA, FAST, most=1000)
    assert not resident.in_training
