"""Rows are tokenised by the one renderer, grouped by length, cut by tokens, packed or padded to the longest of them."""

import itertools
import random
import statistics
from collections.abc import Iterable
from itertools import chain

import pytest
import torch

from glmstudio.models.chat_format import render_example, render_prompt
from glmstudio.settings import PROMPT_STYLES, TrainingSettings
from glmstudio.training.batches import StepSampler, by_length, collate, computed_tokens, pack, render_rows, split_step
from tests.tiny_base import rows, tiny_base


def flat(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def lengths(count: int) -> list[int]:
    source = random.Random(0)
    return [source.randint(20, 450) for _ in range(count)]


def steps_of(size: int, *, count: int = 203, epoch: int = 0, seed: int = 1, alike: bool = True) -> list[list[int]]:
    sampler = StepSampler(lengths(count), size, seed, alike=alike)
    sampler.set_epoch(epoch)
    steps = list(sampler)
    assert len(steps) == len(sampler)
    return steps


@pytest.mark.parametrize("alike", [False, True])
def test_every_row_comes_once_an_epoch_and_the_rest_comes_last(alike: bool) -> None:
    steps = steps_of(8, alike=alike)
    assert sorted(flat(steps)) == list(range(203))
    assert [len(step) for step in steps] == [8] * 25 + [3]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("budget", [1, 300, 700, 2000, 10**6])
def test_a_step_is_cut_by_tokens_into_as_few_parts_as_fit_in_its_order(budget: int, padded: bool) -> None:
    size = lengths(203)
    for step in steps_of(16):
        parts = split_step(step, size, token_budget=budget, batch_size=2, padded=padded)
        assert flat(parts) == step
        costs = [computed_tokens(part, size, padded=padded) for part in parts]
        assert all(cost <= budget or len(part) == 1 for cost, part in zip(costs, parts, strict=True))
        for before, after in itertools.pairwise(parts):
            assert computed_tokens([*before, after[0]], size, padded=padded) > budget


def test_padding_counts_where_rows_are_padded() -> None:
    size = [10, 4, 3, 3]
    assert split_step([0, 1, 2, 3], size, token_budget=20, batch_size=9) == [[0, 1, 2, 3]]
    assert split_step([0, 1, 2, 3], size, token_budget=20, batch_size=9, padded=True) == [[0, 1], [2, 3]]


def test_without_a_budget_the_batch_size_cuts() -> None:
    assert split_step([4, 2, 0, 1, 3], [9] * 5, token_budget=0, batch_size=2) == [[4, 2], [0, 1], [3]]


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(("count", "size"), [(203, 8), (200, 8), (5, 8), (40, 1), (64, 4)])
def test_a_run_that_goes_on_finds_the_steps_of_the_version_that_began_it(count: int, size: int, alike: bool) -> None:
    """The order that 0.1.0 made with lists, row by row."""
    length, pool = lengths(count), size * (16 if alike else 1)
    for epoch in range(3):
        generator = torch.Generator().manual_seed(1 * 1_000_003 + epoch)
        shuffled = torch.randperm(count, generator=generator).tolist()
        ordered = [
            row
            for start in range(0, count, pool)
            for row in sorted(shuffled[start : start + pool], key=length.__getitem__, reverse=True)
        ]
        steps = [ordered[start : start + size] for start in range(0, count, size)]
        places = [*torch.randperm(count // size, generator=generator).tolist(), *range(count // size, len(steps))]
        assert steps_of(size, count=count, epoch=epoch, alike=alike) == [steps[place] for place in places]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert steps_of(8, epoch=1) == steps_of(8, epoch=1)
    assert steps_of(8, epoch=1) != steps_of(8, epoch=2)
    assert steps_of(8, seed=1) != steps_of(8, seed=2)
    together = [{frozenset(step) for step in steps_of(8, epoch=epoch)} for epoch in (0, 1)]
    assert len(together[0] & together[1]) <= 1


def test_without_padding_steps_are_like_each_other_and_begin_with_their_longest_row() -> None:
    size = lengths(400)

    def means(alike: bool) -> list[float]:
        return [sum(size[row] for row in step) / len(step) for step in StepSampler(size, 8, 42, alike=alike)]

    # Means of eight numbers drawn at random spread by a sqrt(8)th of what the numbers do.
    assert statistics.stdev(means(False)) < 1.25 * statistics.stdev(size) / 8**0.5
    assert statistics.stdev(means(True)) > 0.9 * statistics.stdev(size)
    for step in StepSampler(size, 8, 42, alike=False):
        assert [size[row] for row in step] == sorted((size[row] for row in step), reverse=True)


def test_little_is_padded_and_the_length_does_not_fall_within_an_epoch() -> None:
    size = lengths(400)
    steps = list(StepSampler(size, 8, 42, alike=True))
    padded = sum(len(step) * max(size[row] for row in step) for step in steps)
    assert 1 - sum(size) / padded < 0.08
    means = [sum(size[row] for row in step) / len(step) for step in steps]
    half = len(means) // 2
    assert abs(sum(means[:half]) / half - sum(means[half:]) / (len(means) - half)) < 80


def test_no_global_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    steps_of(8)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_rows_are_what_the_renderer_says_and_begin_with_the_prompt_of_use(style: str) -> None:
    base, settings = tiny_base(), TrainingSettings(prompt_style=style, max_source_length=40, max_target_length=8)
    tokenizer, family = base.tokenizer, base.family
    limits = {"max_source_length": 40, "max_target_length": 8, "style": style}
    for row, rendered in zip(rows(9), render_rows(base, rows(9), settings), strict=True):
        assert rendered == render_example(tokenizer, family, row.instruction, row.input, row.target, **limits)
        prompt = render_prompt(tokenizer, family, row.instruction, row.input, max_source_length=40, style=style)
        assert rendered.ids[: rendered.prompt_length] == prompt.ids


def test_a_batch_is_as_wide_as_its_longest_row_and_points_at_what_predicts() -> None:
    rendered = render_rows(tiny_base(), rows(3), TrainingSettings())
    batch = collate(rendered)
    size = [len(row.ids) for row in rendered]
    assert batch["input_ids"].shape == (3, max(size))
    assert batch["attention_mask"].sum(1).tolist() == size
    assert batch["tokens"] == sum(size)
    following = batch["input_ids"].flatten()[batch["places"] + 1]
    assert torch.equal(following, batch["targets"])
    assert len(batch["targets"]) == sum(sum(row.bears_loss) for row in rendered)
    eos = tiny_base().tokenizer.eos_token_id
    assert (batch["targets"] == eos).sum() == 3


def test_packed_rows_lie_end_to_end_and_point_at_what_predicts() -> None:
    rendered = render_rows(tiny_base(), rows(3), TrainingSettings())
    packed, padded = pack(rendered), collate(rendered)
    assert packed["input_ids"].tolist() == [[number for row in rendered for number in row.ids]]
    assert packed["lengths"] == [len(row.ids) for row in rendered]
    assert torch.equal(packed["input_ids"][0, packed["places"] + 1], packed["targets"])
    assert torch.equal(packed["targets"], padded["targets"])
    assert packed["tokens"] == padded["tokens"]


def test_rows_by_length_are_all_rows_the_longest_first() -> None:
    size = lengths(50)
    order = by_length(size)
    assert sorted(order) == list(range(50))
    assert [size[row] for row in order] == sorted(size, reverse=True)
