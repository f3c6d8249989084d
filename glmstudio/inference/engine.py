"""Rows of token ids in, new token ids out: one batch, one cache, one turn at the gate per token.

Continuous batching: a row leaves when it ends, and the next one enters in its place. Yu et al., "Orca: A Distributed
Serving System for Transformer-Based Generative Models", OSDI 2022. Knows no text, no tokenizer's rules and no page.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from glmstudio.errors import StudioError
from glmstudio.inference.padded import PaddedRows
from glmstudio.inference.rows import Row
from glmstudio.inference.sampling import Sampler
from glmstudio.inference.slotted import SlottedRows
from glmstudio.models.positions import positions_of
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.supported import has_cache
from glmstudio.models.varlen import can_pack
from glmstudio.settings import GenerationSettings

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident

LONG_PHRASE = 8
# While others go on, new rows wait until this share of the places is free: one pass for several reads the weights once.
FREE_SHARE = 8


@dataclass(frozen=True)
class Column:
    """One step of all rows: `ids[i]` is row i's new token, None where it has none (any more).

    `finish_reasons[i]` is "" while row i goes on, then for good `stop` (it made an end token, which is not part of the
    answer), `length`, `positions` (the model has no more for prompt and answer), `repetition` or `cancelled`.
    """

    ids: tuple[int | None, ...]
    finish_reasons: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """A row's whole answer: the row's number, its tokens, and why it ended (as in `Column`)."""

    number: int
    ids: list[int]
    finish_reason: str


def generate(
    resident: "Resident", rows: Sequence[Row], settings: GenerationSettings, *, should_stop: Callable[[], bool]
) -> Iterator[Column]:
    """Answers all rows in one batch, until each has finished or `should_stop` says so (asked before every token).

    The prompts must not be empty; one that fills a model's table of positions gets no answer, one that is longer than a
    model without such a table learned for is answered nevertheless. Closing the iterator frees the cache; nothing is
    held between two columns but memory. Raises StudioError `family-cache`, `answer-not-finite` where a model's numbers
    overflow, and what `Resident.forward` raises.
    """
    reasons = [""] * len(rows)
    for news in _steps(resident, rows, settings, len(rows), should_stop):
        ids: list[int | None] = [None] * len(rows)
        for number, (token, reason) in news.items():
            ids[number], reasons[number] = token, reason
        yield Column(tuple(ids), tuple(reasons))


def answers(
    resident: "Resident",
    rows: Sequence[Row],
    settings: GenerationSettings,
    *,
    max_rows: int,
    should_stop: Callable[[], bool],
) -> Iterator[Finished]:
    """The answers of any number of rows as they finish, at most `max_rows` in work at a time: where one finishes, the
    next takes its place. The longest prompts come first: what does not fit into memory shows at once.

    Ends early when `should_stop` says so, without the rows in work. Otherwise as `generate`.
    """
    ids: list[list[int]] = [[] for _ in rows]
    for news in _steps(resident, rows, settings, max_rows, should_stop):
        for number, (token, reason) in news.items():
            if token is not None:
                ids[number].append(token)
            if reason and reason != "cancelled":
                yield Finished(number, ids[number], reason)


def _steps(
    resident: "Resident",
    rows: Sequence[Row],
    settings: GenerationSettings,
    max_rows: int,
    should_stop: Callable[[], bool],
) -> Iterator[dict[int, tuple[int | None, str]]]:
    """What each pass of the model brings: (new token or None, finish reason or "") by the number of the row."""
    work = _work(resident, max_rows, settings)
    room = _room(resident, rows)
    if full := [number for number, left in enumerate(room) if left == 0]:
        yield dict.fromkeys(full, (None, "positions"))
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number].ids))
    waiting = deque(number for number in order if room[number] != 0)
    sampler = Sampler(settings, len(rows))
    base = resident.base
    ends = end_ids(base.tokenizer, base.family, base.model.generation_config.eos_token_id)
    said: list[list[int]] = [[] for _ in rows]
    while work.numbers or waiting:
        if should_stop():
            yield dict.fromkeys((*work.numbers, *waiting), (None, "cancelled"))
            return
        if waiting and work.free >= min(len(waiting), max(1, max_rows // FREE_SHARE), work.places):
            entering = [waiting.popleft() for _ in range(min(work.free, len(waiting)))]
            numbers, logits = work.enter([(number, rows[number]) for number in entering])
        else:
            numbers, logits = work.numbers, work.step()
        _refuse_infinite(logits, [rows[number].adapter for number in numbers])
        picked = sampler.pick(logits, numbers)
        news: dict[int, tuple[int | None, str]] = {}
        for number, token in zip(numbers, picked, strict=True):
            if token in ends:
                news[number] = (None, "stop")
                continue
            said[number].append(token)
            news[number] = (token, _limit_reached(said[number], settings, room[number]))
        work.take(picked)
        if gone := [number for number, (_, reason) in news.items() if reason]:
            work.leave(gone)
        yield news


def _work(resident: "Resident", max_rows: int, settings: GenerationSettings) -> SlottedRows | PaddedRows:
    base = resident.base
    if can_pack(base.model.config):
        return SlottedRows(resident, max_rows)
    if not has_cache(base.model):
        raise StudioError("family-cache", family=base.family.name, source=base.source)
    return PaddedRows(resident, max_rows, settings.limit)


def _room(resident: "Resident", rows: Sequence[Row]) -> list[int | None]:
    """How many tokens each answer may have before the model's positions end; None where they do not end it."""
    positions = positions_of(resident.base.model)
    lefts = [positions.limit - len(row.ids) for row in rows]
    return [max(0, left) if positions.limit and (left > 0 or positions.table) else None for left in lefts]


def _refuse_infinite(logits: torch.Tensor, adapters: Sequence[str]) -> None:
    finite = logits.amax(dim=-1).isfinite()
    if not finite.all():
        raise StudioError("answer-not-finite", adapter=adapters[int(finite.int().argmin())])


def repeats(ids: Sequence[int], times: int) -> bool:
    """Whether `ids` ends with the same phrase `times` times in a row; never where `times` is 0 or 1.

    A phrase under 8 ids must fill as much room as one of 8 would: rulers, runs of digits and short lists are no loops.
    """
    if times < 2:
        return False
    for phrase in range(1, len(ids) // times + 1):
        if ids[-1] != ids[-1 - phrase]:
            continue
        span = phrase * max(times, -(-LONG_PHRASE * times // phrase))
        # Periodic: the span without its first phrase equals the span without its last.
        if span <= len(ids) and ids[-span:-phrase] == ids[len(ids) - span + phrase :]:
            return True
    return False


def _limit_reached(answer: list[int], settings: GenerationSettings, room: int | None) -> str:
    if repeats(answer, settings.repetition_stop):
        return "repetition"
    if len(answer) == room:
        return "positions"
    return "length" if len(answer) == settings.limit else ""
