"""Rows of token ids in, columns of new token ids out: one batch, one KV cache, one turn at the gate per token.

Token ids only: knows no text, no tokenizer's rules and no page.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.errors import StudioError
from glmstudio.inference.cache import put_prefixes, roomy_cache
from glmstudio.inference.sampling import Sampler
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import next_position_ids, position_ids_for
from glmstudio.models.prompts.dialogue import stop_ids
from glmstudio.settings import GenerationSettings

if TYPE_CHECKING:
    from glmstudio.models.loading import Base
    from glmstudio.models.resident import Resident

LONG_PHRASE = 8


@dataclass(frozen=True)
class Row:
    """A prompt's ids and the adapter that answers it, `"__base__"` for none."""

    ids: list[int]
    adapter: str


@dataclass(frozen=True)
class Column:
    """One step of all rows: `ids[i]` is row i's new token, None where it has none (any more).

    `finish_reasons[i]` is "" while row i goes on, then for good `stop` (it made an end token, which is not part of the
    answer), `length`, `repetition` or `cancelled`.
    """

    ids: tuple[int | None, ...]
    finish_reasons: tuple[str, ...]


def generate(
    resident: "Resident", rows: Sequence[Row], settings: GenerationSettings, *, should_stop: Callable[[], bool]
) -> Iterator[Column]:
    """Answers all rows in one batch, until each has finished or `should_stop` says so (asked before every token).

    The prompts must not be empty. Closing the iterator frees the cache; nothing is held between two columns but memory.
    Raises StudioError `answer-not-finite` where a model's numbers overflow, and what `Resident.forward` raises.
    """
    batch = _Batch(resident, rows, settings.max_new_tokens)
    sampler = Sampler(settings, len(rows))
    ends = end_ids(resident.base)
    answers: list[list[int]] = [[] for _ in rows]
    reasons = [""] * len(rows)
    while batch.rows:
        column: list[int | None] = [None] * len(rows)
        if should_stop():
            for row in batch.rows:
                reasons[row] = "cancelled"
            yield Column(tuple(column), tuple(reasons))
            return
        picked = sampler.pick(batch.logits(), batch.rows)
        for row, token in zip(batch.rows, picked, strict=True):
            if token in ends:
                reasons[row] = "stop"
                continue
            column[row] = token
            answers[row].append(token)
            reasons[row] = _limit_reached(answers[row], settings)
        batch.advance(picked, [place for place, row in enumerate(batch.rows) if not reasons[row]])
        yield Column(tuple(column), tuple(reasons))


def end_ids(base: "Base") -> set[int]:
    """The tokens that end an answer: those of the model's generation config, those that training rows end with, and
    those with which a dialogue goes on to somebody else."""
    ids = base.model.generation_config.eos_token_id
    ends = set(ids) if isinstance(ids, list) else {ids}
    if base.tokenizer is not None:
        ends |= {base.tokenizer.eos_token_id} | stop_ids(base.tokenizer, base.family)
    return ends - {None}


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


def _limit_reached(answer: list[int], settings: GenerationSettings) -> str:
    if repeats(answer, settings.repetition_stop):
        return "repetition"
    return "length" if len(answer) == settings.max_new_tokens else ""


class _Batch:
    """The unfinished rows on the model: their cache, positions and mask. `rows` are their numbers in the request."""

    def __init__(self, resident: "Resident", rows: Sequence[Row], max_new_tokens: int) -> None:
        self.rows = list(range(len(rows)))
        self._resident = resident
        self._adapters = [row.adapter for row in rows]
        self._cache = roomy_cache(resident.base.model.config)
        longest = max((len(row.ids) for row in rows), default=0)
        pads = [longest - len(row.ids) for row in rows]
        ids = torch.tensor([[0] * pad + row.ids for pad, row in zip(pads, rows, strict=True)])
        mask = torch.ones(len(rows), longest + max_new_tokens, dtype=torch.long)
        for place, pad in enumerate(pads):
            mask[place, :pad] = 0
        device = resident.base.device
        self._ids = ids.to(device)
        # A prefix takes place in the cache and in the mask, but no position.
        self._positions = _first_positions(resident.base.model.config, self._ids, mask[:, :longest].to(device))
        shown = put_prefixes(self._cache, resident.prefixes(self._adapters))
        self._seen = shown.shape[1] + longest
        # Where nothing is to be hidden, attention without a mask is faster.
        self._mask = None if shown.all() and not any(pads) else torch.cat((shown, mask), dim=1).to(device)

    def logits(self) -> torch.Tensor:
        """Runs the ids that wait; (b, vocabulary) of the last position of each row, finite."""
        output: Any = self._resident.forward(
            self._adapters,
            input_ids=self._ids,
            attention_mask=None if self._mask is None else self._mask[:, : self._seen],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1]
        finite = logits.amax(dim=-1).isfinite()
        if not finite.all():
            raise StudioError("answer-not-finite", adapter=self._adapters[int(finite.int().argmin())])
        return logits

    def advance(self, picked: list[int], unfinished: list[int]) -> None:
        """Takes the new tokens of all rows and keeps the rows at the places `unfinished`."""
        self._seen += 1
        self._ids = torch.tensor(picked, device=self._ids.device)[:, None]
        self._positions = _next_positions(self._positions)
        if len(unfinished) < len(self.rows):
            self._keep(unfinished)

    def _keep(self, places: list[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        self._adapters = [self._adapters[place] for place in places]
        chosen = torch.tensor(places, dtype=torch.long, device=self._ids.device)
        self._cache.batch_select_indices(chosen)
        self._ids = self._ids[chosen]
        self._positions = self._positions[chosen]
        if self._mask is not None:
            self._mask = self._mask[chosen]


def _first_positions(config: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b, 2, s) for ChatGLM-6B, else (b, s) counted from each row's first token."""
    if isinstance(config, ChatGLMConfig):
        return position_ids_for(ids, mask, config)
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def _next_positions(positions: torch.Tensor) -> torch.Tensor:
    return next_position_ids(positions) if positions.dim() == 3 else positions[:, -1:] + 1
