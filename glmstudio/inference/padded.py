"""Rows answered as one padded batch on transformers' own cache: for models whose attention is not among those that
rows in slots know. Token ids and tensors: knows no sampling and no end of an answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.inference.cache import each_row_can_leave, put_prefixes, roomy_cache
from glmstudio.inference.rows import Row

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident


class PaddedRows:
    """As `slotted.SlottedRows`, but new rows enter only when all others have left."""

    def __init__(self, resident: "Resident", places: int, max_new_tokens: int) -> None:
        self.numbers: list[int] = []
        self._resident = resident
        # What some families keep beside keys and values knows neither padding nor rows that leave.
        self.places = places if each_row_can_leave(resident.base.model.config) else 1
        self._max_new_tokens = max_new_tokens
        self._adapters: list[str] = []

    @property
    def free(self) -> int:
        return 0 if self.numbers else self.places

    def enter(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[int], torch.Tensor]:
        self.numbers = [number for number, _ in rows]
        self._adapters = [row.adapter for _, row in rows]
        prompts = [row.ids for _, row in rows]
        longest = max(map(len, prompts))
        pads = [longest - len(ids) for ids in prompts]
        mask = torch.ones(len(rows), longest + self._max_new_tokens, dtype=torch.long)
        for place, pad in enumerate(pads):
            mask[place, :pad] = 0
        device = self._resident.base.device
        self._cache = roomy_cache(self._resident.base.model.config)
        self._ids = torch.tensor([[0] * pad + ids for pad, ids in zip(pads, prompts, strict=True)], device=device)
        # A prefix takes place in the cache and in the mask, but no position.
        self._positions = (mask[:, :longest].cumsum(-1) - 1).clamp(min=0).to(device)
        shown = put_prefixes(self._cache, self._resident.prefixes(self._adapters))
        self._seen = shown.shape[1] + longest
        # Where nothing is to be hidden, attention without a mask is faster.
        self._mask = None if shown.all() and not any(pads) else torch.cat((shown, mask), dim=1).to(device)
        return self.numbers, self._logits()

    def step(self) -> torch.Tensor:
        return self._logits()

    def take(self, picked: Sequence[int]) -> None:
        self._seen += 1
        self._ids = torch.tensor(picked, device=self._ids.device)[:, None]
        self._positions = self._positions[:, -1:] + 1

    def leave(self, numbers: Sequence[int]) -> None:
        places = [place for place, number in enumerate(self.numbers) if number not in numbers]
        self.numbers = [self.numbers[place] for place in places]
        self._adapters = [self._adapters[place] for place in places]
        if not places:
            return
        chosen = torch.tensor(places, dtype=torch.long, device=self._ids.device)
        self._cache.batch_select_indices(chosen)
        self._ids = self._ids[chosen]
        self._positions = self._positions[chosen]
        if self._mask is not None:
            self._mask = self._mask[chosen]

    def _logits(self) -> torch.Tensor:
        output: Any = self._resident.forward(
            self._adapters,
            input_ids=self._ids,
            attention_mask=None if self._mask is None else self._mask[:, : self._seen],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]
