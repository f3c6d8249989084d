"""A run takes what was said before; what would not fit is refused with ways that do; a probe leaves no trace."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.batches import StepSampler
from glmstudio.training.estimate import HEAVY_STEPS, PARTS, _array, _heaviest, estimate, shortage
from glmstudio.training.probe import Footprint, Growth, Probe, probe
from tests.tiny_base import tiny_base
from tests.train.runs import FAST, bytes_of, run_in

ROOT = Path(__file__).resolve().parents[2]
GB = 2**30
# 1 MB a token, 0.1 with checkpointing; a base of 4 GB in 16 bits.
MADE = Probe(
    device="cuda", number_bytes=2, held=4 * GB, weights=4 * GB, linear=2 * GB - GB // 4, quantization="none", packed=0,
    adapter=10**6, plain=Footprint(Growth(0, 1e6), Growth(0, 1e6)),
    checkpointed=Footprint(Growth(0, 1e5), Growth(0, 1e5)), target=0.0, slope=0, chunk=100, look=0, cached=0,
    longest_square=512, padded=False, forward=Growth(0.01, 1e-4), both=Growth(0.02, 3e-4), step=0.001,
)  # fmt: skip
ROWS = [(1000, 100)] * 40
SETTINGS = TrainingSettings(num_train_epochs=1)


def made(free: float, settings: TrainingSettings = SETTINGS, rows=ROWS):
    return estimate(MADE, rows, [], settings, free=int(free * GB))


def test_the_estimate_is_within_a_tenth_of_the_measured_peak(tmp_path):
    cases = ["glm 256x6 auto 8 400 2 auto", "glm 512x6 auto 6 400 2 on", "chatglm 256x4 fp32 8 300 2 auto"]
    # The probe before a small run takes no more than that.
    cases.append("glm 512x6 fp32 2 60 4 auto")
    words = [sys.executable, "-m", "tests.train.measured_run", str(tmp_path), *cases]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"estimated"')]
    assert len(found) == len(cases)
    for case, sizes in zip(cases, found, strict=True):
        assert sizes["estimated"] == pytest.approx(sizes["measured"], rel=0.1), case
        assert sizes["probed"] <= 1.05 * sizes["measured"], case


def test_parts_add_up_and_time_follows_tokens_and_passes():
    found = made(20)
    assert found.total == sum(getattr(found, name) for name in PARTS)
    assert found.activations == round(1.05 * 8 * 1000 * 1e6)
    assert found.adapter == 16 * 10**6
    # 40,000 tokens, 5 micro-batches of 8 rows, 5 steps of the optimizer.
    assert found.seconds == pytest.approx(40_000 * 3e-4 + 5 * 0.02 + 5 * 0.001)
    assert made(20, dataclasses.replace(SETTINGS, gradient_checkpointing="on")).seconds > found.seconds


def test_the_largest_step_counts_not_the_longest_rows():
    found = made(20, rows=[(1000, 100)] * 20 + [(200, 20)] * 20)
    steps = StepSampler([1000] * 20 + [200] * 20, 8, SETTINGS.seed, alike=False)
    largest = max(sum(1000 if row < 20 else 200 for row in step) for step in steps)
    assert found.activations == round(1.05 * largest * 1e6)
    assert largest < 8000


def test_of_all_steps_of_a_run_the_heaviest_are_looked_at():
    chance = random.Random(5)
    rows = [(chance.choice([10, 40, 90, 900]), 5) for _ in range(203)]
    for padded, settings in ((False, SETTINGS), (True, dataclasses.replace(SETTINGS, num_train_epochs=2.5))):
        sampler, steps = StepSampler([tokens for tokens, _ in rows], 8, settings.seed, alike=padded), []
        for epoch in range(3 if padded else 1):
            sampler.set_epoch(epoch)
            steps += sampler
        heavy = sorted(steps, key=lambda step: sum(rows[row][0] for row in step), reverse=True)[:HEAVY_STEPS]
        found = _heaviest(_array(rows), settings, padded=padded)
        assert found == [[rows[row] for row in step] for step in heavy]


def test_memory_decides_about_budget_and_checkpointing():
    assert (made(20).token_budget, made(20).gradient_checkpointing) == (0, False)
    tighter = made(5)
    assert tighter.fits
    assert 5000 <= tighter.token_budget < 6000
    assert not tighter.gradient_checkpointing
    least = made(0.9)
    assert least.fits
    assert least.gradient_checkpointing
    assert not made(0.9, dataclasses.replace(SETTINGS, gradient_checkpointing="off")).fits
    asked = dataclasses.replace(SETTINGS, token_budget=2000, gradient_checkpointing="on")
    assert (made(20, asked).token_budget, made(20, asked).gradient_checkpointing) == (2000, True)


def gigabytes(said: str) -> float:
    number, unit = said.split()
    assert unit == "GB"
    return float(number)


def test_what_does_not_fit_is_refused_with_ways_that_do():
    def told(free: float, settings: TrainingSettings = SETTINGS, rows=ROWS):
        found = shortage(made(free, settings, rows), MADE, rows, [], settings, free=int(free * GB))
        return {f"{item.code}{item.params.get('quantization', '')}": item.params for item in found}

    assert told(0.9) == {}
    fixed = told(0.9, dataclasses.replace(SETTINGS, gradient_checkpointing="off"))
    assert {"memory-short", "memory-automatic"} <= set(fixed)
    assert gigabytes(fixed["memory-short"]["need"]) > gigabytes(fixed["memory-short"]["room"]) == 4.9
    short = told(0.05)
    assert set(short) == {"memory-short", "memory-lengths", "memory-quantised8bit", "memory-quantised4bit"}
    tokens = short["memory-lengths"]["tokens"]
    assert told(0.05, rows=[(min(size, tokens), goal) for size, goal in ROWS]) == {}
    assert set(told(-3.9)) == {"memory-short", "memory-nothing"}
    assert all(gigabytes(short[f"memory-quantised{kind}"]["need"]) < 4.05 for kind in ("8bit", "4bit"))


@pytest.mark.parametrize("method", ["lora", "ptuning"])
def test_a_probe_leaves_everything_as_it_was(tmp_path, method):
    settings = dataclasses.replace(FAST, method=method, pre_seq_len=4)
    run_in(tmp_path / "first", settings)
    resident = Resident(tiny_base())
    resident.load("finished", tmp_path / "first" / "last")
    ids = torch.tensor([[5, 6, 7, 8]])
    before = resident.forward(["finished"], input_ids=ids).logits
    random, adapters = torch.get_rng_state(), sorted(resident.base.model.state_dict())
    measured = probe(resident, LoraSettings(r=4), settings, most=1000)
    assert torch.equal(torch.get_rng_state(), random)
    assert sorted(resident.base.model.state_dict()) == adapters
    assert not resident.base.model.training
    assert torch.equal(resident.forward(["finished"], input_ids=ids).logits, before)
    assert measured.checkpointed.saved.token < measured.plain.saved.token
    assert measured.padded == (method == "ptuning")
    run_in(tmp_path / "second", settings, resident=resident)
    if method == "lora":
        assert bytes_of(tmp_path / "second" / "last") == bytes_of(tmp_path / "first" / "last")


def test_a_probe_stops_between_two_passes_and_gives_nothing():
    asked = []
    assert (
        probe(
            Resident(tiny_base()),
            LoraSettings(r=4),
            FAST,
            most=1000,
            should_stop=lambda: asked.append(1) or len(asked) > 2,
        )
        is None
    )
    assert len(asked) == 3
