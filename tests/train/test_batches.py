"""Rows are tokenised by the one renderer, grouped by length and padded to the longest of their micro-batch."""

import random
from collections.abc import Iterable
from itertools import chain

import pytest
import torch

from glmstudio.models.chat_format import render_example, render_prompt
from glmstudio.settings import PROMPT_STYLES, TrainingSettings
from glmstudio.training.batches import LikeLengths, collate, dev_batches, pack, render_rows
from tests.tiny_base import rows, tiny_base


def flat(parts: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


def lengths(count: int) -> list[int]:
    source = random.Random(0)
    return [source.randint(20, 450) for _ in range(count)]


def steps_of(batch_size: int, accumulate: int, *, count: int = 203, epoch: int = 0, seed: int = 1) -> list[list[int]]:
    sampler = LikeLengths(lengths(count), batch_size, accumulate, seed)
    sampler.set_epoch(epoch)
    micro = list(sampler)
    assert len(micro) == len(sampler)
    return [flat(micro[start : start + accumulate]) for start in range(0, len(micro), accumulate)]


def test_every_row_comes_once_an_epoch_and_the_rest_comes_last() -> None:
    steps = steps_of(8, 1)
    assert sorted(flat(steps)) == list(range(203))
    assert [len(step) for step in steps] == [8] * 25 + [3]


def test_a_step_has_the_same_rows_however_it_is_cut() -> None:
    assert steps_of(8, 1) == steps_of(1, 8) == steps_of(2, 4) == steps_of(4, 2)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert steps_of(8, 1, epoch=1) == steps_of(8, 1, epoch=1)
    assert steps_of(8, 1, epoch=1) != steps_of(8, 1, epoch=2)
    assert steps_of(8, 1, seed=1) != steps_of(8, 1, seed=2)
    together = [{frozenset(step) for step in steps_of(8, 1, epoch=epoch)} for epoch in (0, 1)]
    assert len(together[0] & together[1]) <= 1


def test_little_is_padded_and_the_length_does_not_fall_within_an_epoch() -> None:
    size = lengths(400)
    steps = list(LikeLengths(size, 8, 1, 42))
    padded = sum(len(step) * max(size[row] for row in step) for step in steps)
    assert 1 - sum(size) / padded < 0.08
    means = [sum(size[row] for row in step) / len(step) for step in steps]
    half = len(means) // 2
    assert abs(sum(means[:half]) / half - sum(means[half:]) / (len(means) - half)) < 80


def test_no_global_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    steps_of(4, 2)
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


def test_dev_batches_hold_every_row_once_in_order_of_length() -> None:
    rendered = render_rows(tiny_base(), rows(10), TrainingSettings())
    batches = dev_batches(rendered, 4)
    assert sorted(flat(batches)) == list(range(10))
    size = [len(rendered[row].ids) for row in flat(batches)]
    assert size == sorted(size, reverse=True)
