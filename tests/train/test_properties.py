"""Properties of training that must hold bit for bit, or to rounding: seeds, accumulation, answers given meanwhile."""

import dataclasses
import threading
from collections import deque
from pathlib import Path

import pytest
import torch

from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.resident import Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from tests.tiny_base import tiny_base
from tests.train.runs import FAST, bytes_of, records, run_in, weights

pytestmark = pytest.mark.slow
ASK = GenerationSettings(max_new_tokens=4, repetition_stop=0)
DROPOUT = LoraSettings(r=4, lora_dropout=0.2)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    run_in(tmp_path / "one", lora=DROPOUT)
    torch.manual_seed(12345)
    run_in(tmp_path / "two", lora=DROPOUT)
    run_in(tmp_path / "other", dataclasses.replace(FAST, seed=43), lora=DROPOUT)
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "one" / name) == bytes_of(tmp_path / "two" / name)
    assert bytes_of(tmp_path / "one" / "last") != bytes_of(tmp_path / "other" / "last")


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 8), (2, 4), (4, 2)])
def test_batch_times_accumulation_is_one_big_batch(tmp_path: Path, batch: int, accumulate: int) -> None:
    big = dataclasses.replace(FAST, per_device_train_batch_size=8, num_train_epochs=3, learning_rate=5e-3)
    cut = dataclasses.replace(big, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate)
    assert run_in(tmp_path / "big", big).total == run_in(tmp_path / "cut", cut).total == 9
    losses = [[record.values["loss"] for record in records(tmp_path / name, "train")] for name in ("big", "cut")]
    assert losses[1] == pytest.approx(losses[0], abs=2e-5)
    for name, weight in weights(tmp_path / "big" / "last").items():
        torch.testing.assert_close(weights(tmp_path / "cut" / "last")[name], weight, atol=2e-4, rtol=1e-3)


class WaitingLine(deque):
    """A gate's line that notes for everyone in it how many steps were made from joining it to being called.

    Joining happens under the gate's lock and the trainer itself calls, so nothing is counted that is no waiting.
    """

    def __init__(self, step: list[int], waits: list[int]) -> None:
        super().__init__()
        self._step, self._waits = step, waits

    def append(self, event: threading.Event) -> None:
        super().append((event, self._step[0]))

    def popleft(self) -> threading.Event:
        event, joined = super().popleft()
        self._waits.append(self._step[0] - joined)
        return event


def test_trained_while_answering_is_trained_alone(tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    alone = Resident(tiny_base())
    run_in(tmp_path / "alone", settings, lora=DROPOUT, resident=alone)
    run_in(tmp_path / "finished", lora=LoraSettings(r=2, target_modules=("dense",)))

    asked = Resident(tiny_base())
    step, waits, ended = [0], [], threading.Event()
    asked.gate._waiting = WaitingLine(step, waits)

    def ask() -> None:
        number = 0
        while not ended.is_set():
            asked.load(f"run@{number % 6}", tmp_path / "finished" / "last")
            ids = torch.randint(10, 60, (12,), generator=torch.Generator().manual_seed(number)).tolist()
            rows = [Row(ids, "__base__"), Row(ids[number % 5 :], f"run@{number % 6}")]
            for _ in generate(asked, rows, ASK, should_stop=ended.is_set):
                pass
            number += 1

    asking = threading.Thread(target=ask)

    def follow(progress) -> None:
        step[0] = progress.step
        if progress.step == 1 and not asking.is_alive():
            asking.start()

    run_in(tmp_path / "asked", settings, lora=DROPOUT, resident=asked, on_progress=follow)
    ended.set()
    asking.join(600)
    assert len(waits) > 10
    assert max(waits) <= 1
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "alone" / name) == bytes_of(tmp_path / "asked" / name)
    assert asked._peft is not None
    assert "default" not in asked._peft.peft_config


def test_only_the_adapter_in_training_is_saved(tmp_path: Path) -> None:
    run_in(tmp_path / "first")
    resident = Resident(tiny_base())
    resident.load("run@first", tmp_path / "first" / "best")
    run_in(tmp_path / "second", resident=resident)
    assert sorted(path.name for path in (tmp_path / "second" / "checkpoint-12").iterdir() if path.is_dir()) == []
    assert bytes_of(tmp_path / "second" / "last") == bytes_of(tmp_path / "first" / "last")
    ids = torch.arange(10, 30)[None]
    answers = resident.forward(["run@first", "__base__"], input_ids=ids.repeat(2, 1)).logits
    assert (answers[0] - answers[1]).abs().max() > 0.01
