"""Twenty updates are those of Hugging Face's plain Trainer with PEFT: same rows, rate and clipping, same losses."""

import dataclasses

import pytest

from glmstudio.benchmarks import random_base, ways
from glmstudio.benchmarks.rows import synthetic_rows
from glmstudio.training.batches import StepSampler

# Four updates an epoch. At this rate the losses fall, and nearly every gradient is longer than the clipping allows.
VOCABULARY, ROWS, EPOCHS, UPDATES = 256, 32, 5, 20
SETTINGS = dataclasses.replace(
    ways.SETTINGS, learning_rate=1e-2, max_grad_norm=0.05, max_source_length=40, max_target_length=24
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_base, "VOCABULARY", VOCABULARY)
    monkeypatch.setattr(ways, "SETTINGS", SETTINGS)


def ours(shape: random_base.Shape) -> list[float]:
    return ways.ours(random_base.random_base(shape, "cpu"), synthetic_rows(ROWS, VOCABULARY), EPOCHS).losses


def theirs(shape: random_base.Shape, batch: int) -> list[float]:
    """The Trainer's losses on the rows in the order that ours takes them in, padded, in micro-batches of `batch`."""
    base = random_base.random_base(shape, "cpu")
    rows = ways.rendered(base, synthetic_rows(ROWS, VOCABULARY))
    steps, ordered = StepSampler([len(row.ids) for row in rows], ways.ROWS, SETTINGS.seed, alike=False), []
    for epoch in range(EPOCHS):
        steps.set_epoch(epoch)
        ordered += [rows[number] for step in steps for number in step]
    return ways._hugging_face(base, ordered, 1, batch=batch, sampling="sequential").losses


@pytest.mark.parametrize(
    ("family", "dtype", "batch", "absolute", "relative"),
    [
        ("glm", "fp32", 8, 1e-5, 0),
        ("chatglm", "fp32", 2, 1e-5, 0),
        ("glm", "bf16", 2, 0, 1e-3),
        ("chatglm", "bf16", 8, 0, 1e-3),
    ],
)
def test_losses_of_twenty_updates(family: str, dtype: str, batch: int, absolute: float, relative: float) -> None:
    shape = random_base.Shape(family, "64x1", dtype)
    own, plain = ours(shape), theirs(shape, batch)
    assert len(own) == len(plain) == UPDATES
    assert sum(own[-4:]) < sum(own[:4]) - 0.1
    assert own == pytest.approx(plain, abs=absolute, rel=relative)
