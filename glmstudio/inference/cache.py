"""A key-value cache that takes a new token without copying the old ones, and prefixes in it. Knows no decoding loop.

transformers' `DynamicLayer` joins old and new anew for every token: at 32 rows that alone took longer than the model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE_TOKENS = 64


def roomy_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this config; layers of other kinds (sliding windows) are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def each_row_can_leave(config: Any) -> bool:
    """Whether every layer's cache can go on without one of its rows: those of attention alone can."""
    return all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=config).layers)


def put_prefixes(cache: DynamicCache, prefixes: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Fill an empty `cache` with each row's prefix; (b, longest) int64 on the CPU, 1 where a row has a key of its own.

    A prefix is (layers, 2, heads, tokens, head_dim); rows without one, and shorter ones, get zeros that are to be
    hidden. Nothing is done where no row has a prefix: the mask is then (b, 0).
    """
    lengths = [0 if prefix is None else prefix.shape[-2] for prefix in prefixes]
    shown = torch.zeros(len(prefixes), max(lengths, default=0), dtype=torch.long)
    first = next((prefix for prefix in prefixes if prefix is not None), None)
    if first is None:
        return shown
    rows = first.new_zeros(*first.shape[:2], len(prefixes), first.shape[2], shown.shape[1], first.shape[-1])
    for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
        if prefix is not None:
            rows[:, :, row, :, :length] = prefix
            shown[row, :length] = 1
    for index, (keys, values) in enumerate(rows):
        cache.update(keys, values, index)
    return shown


class RoomyLayer(DynamicLayer):
    """Keys and values (b, heads, tokens, head_dim) are views of larger tensors, which grow now and then."""

    _key_room: torch.Tensor | None = None
    _value_room: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (b, heads, new, head_dim) of each and returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        self._key_room = _appended(self._key_room, key_states, start)
        self._value_room = _appended(self._value_room, value_states, start)
        self._show(start + key_states.shape[-2])
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows `indices` (n,) int64 of the batch, in that order."""
        if not self.is_initialized:  # Some models have layers that share another one's keys and values.
            return
        self._key_room, self._value_room = self._key_room[indices], self._value_room[indices]
        self._show(self.get_seq_length())

    def _show(self, length: int) -> None:
        self.keys, self.values = self._key_room[..., :length, :], self._value_room[..., :length, :]


def _appended(room: torch.Tensor | None, new: torch.Tensor, start: int) -> torch.Tensor:
    end = start + new.shape[-2]
    if room is None or room.shape[-2] < end:
        larger = new.new_empty(*new.shape[:-2], end + SPARE_TOKENS, new.shape[-1])
        if room is not None:
            larger[..., :start, :] = room[..., :start, :]
        room = larger
    room[..., start:end, :] = new
    return room
