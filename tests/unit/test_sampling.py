"""Picking tokens: greedy, temperature and top-p as defined, own generators, rows independent of each other."""

import pytest
import torch

from glmstudio.inference.sampling import Sampler, draw
from glmstudio.settings import GenerationSettings

LOGITS = torch.log(torch.tensor([[0.1, 0.5, 0.1, 0.3]]))


def drawn(settings: GenerationSettings, logits: torch.Tensor, rows: list[int], steps: int) -> list[list[int]]:
    sampler = Sampler(settings, max(rows) + 1)
    return [sampler.pick(logits, rows) for _ in range(steps)]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]], dtype=torch.bfloat16)
    assert Sampler(GenerationSettings(temperature=0), 2).pick(logits, [0, 1]) == [1, 0]


@pytest.mark.parametrize(
    ("point", "top_p", "expected"),
    [
        (0.0, 1.0, 1),
        (0.49, 1.0, 1),
        (0.51, 1.0, 3),
        (0.79, 1.0, 3),
        (0.95, 1.0, 2),
        (0.999999, 0.75, 3),  # only 0.5 and 0.3 are left, scaled to 0.625 and 0.375
        (0.62, 0.75, 1),
        (0.63, 0.75, 3),
        (0.999999, 0.5, 1),
        (0.999999, 0.01, 1),
    ],
)
def test_a_point_of_the_cumulative_distribution_names_its_token(point: float, top_p: float, expected: int) -> None:
    assert draw(LOGITS, torch.tensor([point]), 1.0, top_p).tolist() == [expected]


def test_frequencies_follow_softmax_at_the_temperature() -> None:
    points = (torch.arange(2000) + 0.5) / 2000
    picked = draw(LOGITS.repeat(2000, 1), points, 2.0, 1.0)
    expected = (LOGITS[0] / 2.0).softmax(dim=-1)
    assert torch.allclose(picked.bincount(minlength=4) / 2000, expected, atol=2e-3)


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    drawn(GenerationSettings(temperature=1.0), torch.zeros(2, 50), [0, 1], steps=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides() -> None:
    flat = torch.zeros(1, 1000)
    first = drawn(GenerationSettings(temperature=1.0, seed=1), flat, [0], steps=8)
    assert drawn(GenerationSettings(temperature=1.0, seed=1), flat, [0], steps=8) == first
    assert drawn(GenerationSettings(temperature=1.0, seed=2), flat, [0], steps=8) != first


def test_rows_draw_independently_and_alike_in_any_batch() -> None:
    settings = GenerationSettings(temperature=1.0)
    together = drawn(settings, torch.zeros(3, 1000), [0, 1, 2], steps=8)
    columns = [list(column) for column in zip(*together, strict=True)]
    assert len({tuple(column) for column in columns}) == 3
    assert [row[0] for row in drawn(settings, torch.zeros(1, 1000), [2], steps=8)] == columns[2]
