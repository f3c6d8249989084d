"""Keys and values of the rows that are being answered, and attention over them; rows come and go one by one.

Every row has a place in a few large tensors and lies there from column 0 on. New rows enter end to end in one pass,
without padding; then a pass gives each row one token. Both are a `packing` of `models.varlen`. Knows places and
tensors: no adapter, no sampling, no text.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional as F

from glmstudio.models.packing import Packing, causal_bias
from glmstudio.models.varlen import attend_inside

SPARE_TOKENS = 64
# On a CPU so many neighbours share a product in a step, as wide as the longest of them: with all in one, most of what
# is read may be hidden. On a card more calls cost more than that.
NEIGHBOURS = 8
# On a CPU, half-precision products of one query with keys of its own take 2 to 3 times as long as copies of keys and
# values in float32 and the products of those, as long as so many elements of a copy stay in the processor's cache.
COPIED_ELEMENTS = 2**17


class Slots:
    """Room for `places` rows. `lengths[place]` is how many columns of a place in use are filled; the rows in use are
    the first `len(lengths)` places."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.lengths: list[int] = []
        # Keys and values of each layer, (places, key heads, width, head_dim); columns without a token are finite.
        self._rooms: list[list[torch.Tensor]] = []

    def room(self, layer: int, columns: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Keys and values of `layer`, at least `columns` wide, with heads and type of `like` (…, key heads, n, d)."""
        while len(self._rooms) <= layer:
            self._rooms.append([])
        rooms = self._rooms[layer]
        if not rooms or rooms[0].shape[2] < columns:
            shape = (self.places, like.shape[-3], columns + SPARE_TOKENS, like.shape[-1])
            # Zeros: a hidden column has weight 0, and 0 times whatever lay in memory may be no number.
            wider = [like.new_zeros(shape) for _ in range(2)]
            for new, old in zip(wider, rooms, strict=False):
                new[:, :, : old.shape[2]] = old
            self._rooms[layer] = rooms = wider
        return rooms

    def put(self, place: int, states: torch.Tensor) -> None:
        """Fills the first columns of `place`, the next one in use, with states (layers, 2, key heads, n, head_dim)."""
        for layer, parts in enumerate(states):
            for room, part in zip(self.room(layer, part_length(states), parts), parts, strict=True):
                room[place, :, : part.shape[-2]] = part

    def move(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies the states of places: (from, to) each, as if all at once."""
        if pairs:
            self.copy(pairs, max(self.lengths[source] for source, _ in pairs))

    def copy(self, pairs: Sequence[tuple[int, int]], columns: int) -> None:
        """As `move`, but the first `columns` only."""
        sources, targets = ([pair[end] for pair in pairs] for end in (0, 1))
        for rooms in self._rooms:
            for room in rooms:
                room[targets, :, :columns] = room[sources, :, :columns]

    def states(self, place: int) -> torch.Tensor:
        """A copy of what `place` holds, (layers, 2, key heads, n, head_dim)."""
        columns = self.lengths[place]
        return torch.stack([torch.stack([room[place, :, :columns] for room in rooms]) for rooms in self._rooms])


def part_length(states: torch.Tensor) -> int:
    """How many columns states (layers, 2, key heads, n, head_dim) fill."""
    return states.shape[-2]


class Entering:
    """The pass that new rows enter with, end to end: `lengths[i]` tokens at `places[i]`, behind what is there.

    It is what the model takes for its cache. `contexts` are those of `Packing`.
    """

    def __init__(self, slots: Slots, places: Sequence[int], lengths: Sequence[int], contexts: Sequence[int]) -> None:
        self._slots, self._places = slots, places
        self._past = [slots.lengths[place] for place in places]
        self._packing = Packing(tuple(lengths), tuple(contexts))
        self._biases: dict[tuple[Any, ...], torch.Tensor] = {}
        self.lengths = tuple(lengths)

    @property
    def ends(self) -> list[int]:
        """Where the last token of each row lies in the pass."""
        return [end - 1 for end in accumulate(self.lengths)]

    def done(self) -> None:
        """The new tokens count from now on."""
        for place, length in zip(self._places, self.lengths, strict=True):
            self._slots.lengths[place] += length

    def get_seq_length(self, *args: Any) -> int:
        return 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *args: Any) -> tuple[torch.Tensor, ...]:
        """Stores (1, key heads, total, head_dim) of each; gives them, or where rows have a past the layer's rooms."""
        columns = max(past + length for past, length in zip(self._past, self.lengths, strict=True))
        rooms = self._slots.room(layer, columns, keys)
        for room, states in zip(rooms, (keys, values), strict=True):
            for place, past, new in zip(self._places, self._past, states[0].split(self.lengths, 1), strict=True):
                room[place, :, past : past + new.shape[1]] = new
        return tuple(rooms) if any(self._past) else (keys, values)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None,
        dropout: float,
    ) -> torch.Tensor:  # fmt: skip
        """`query` (1, heads, total, d), the rest as from `update` → (1, total, heads, d)."""
        if not any(self._past):
            return attend_inside(self._packing, query, key, value, scaling, window, dropout)
        outputs = []
        for number, q in enumerate(query.split(self.lengths, 2)):
            place, columns = self._places[number], self._past[number] + self.lengths[number]
            outputs.append(
                F.scaled_dot_product_attention(
                    q,
                    key[place, None, :, :columns],
                    value[place, None, :, :columns],
                    attn_mask=self._bias(number, window, q),
                    scale=scaling,
                    enable_gqa=q.shape[1] != key.shape[1],
                ).transpose(1, 2)
            )
        return torch.cat(outputs, 1)

    def _bias(self, number: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """0 or -inf, (tokens of row `number`, its past and its tokens)."""
        length, past, context = self.lengths[number], self._past[number], self._packing.contexts[number]
        key = (length, past, context, window)
        if key not in self._biases:
            self._biases[key] = causal_bias(length, context, window, like.dtype, like.device, past=past)
        return self._biases[key]


class Step:
    """The pass that gives every row in use one token; the model's cache, as `Entering` is."""

    def __init__(self, slots: Slots, device: torch.device) -> None:
        self._slots, self._device = slots, device
        self.lengths = tuple(slots.lengths)
        self._columns = max(self.lengths) + 1
        # Where all rows are equally long nothing is hidden, and one slice takes all of the new column.
        self._even = min(self.lengths) == max(self.lengths)
        self._ends = torch.tensor(self.lengths, device=device)
        self._biases: dict[Any, torch.Tensor | None] = {}
        self._targets: dict[tuple[int, int], torch.Tensor] = {}
        self._copies = torch.empty(2, 0)

    def done(self) -> None:
        """The new tokens count from now on."""
        self._slots.lengths = [length + 1 for length in self.lengths]

    def get_seq_length(self, *args: Any) -> int:
        return 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *args: Any) -> tuple[torch.Tensor, ...]:
        """Stores (b, key heads, 1, head_dim) of each; gives all of these rows, (b, key heads, columns, head_dim)."""
        rows, columns = len(self.lengths), self._columns
        rooms = self._slots.room(layer, columns, keys)
        for room, states in zip(rooms, (keys, values), strict=True):
            if self._even:
                room[:rows, :, columns - 1 : columns] = states
            else:
                flat = room.view(-1, room.shape[-1])
                flat.index_copy_(0, self._target(*room.shape[1:3]), states.reshape(-1, room.shape[-1]))
        return tuple(room[:rows, :, :columns] for room in rooms)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None,
        dropout: float,
    ) -> torch.Tensor:  # fmt: skip
        """`query` (b, heads, 1, d), the rest as from `update` → (b, 1, heads, d).

        The heads that share a key head stand where the queries of a sequence do: nothing is repeated for them."""
        rows, heads, _, size = query.shape
        shared = query.reshape(rows, key.shape[1], -1, size)
        copied = query.device.type == "cpu" and query.dtype != torch.float32 and heads == key.shape[1]
        if copied:
            together = max(1, COPIED_ELEMENTS // (key.shape[1] * self._columns * size))
            attend = self._in_float32
        else:
            together = rows if self._even or query.is_cuda else NEIGHBOURS
            attend = F.scaled_dot_product_attention
        bias = self._bias(window, torch.float32 if copied else query.dtype)
        outputs = []
        for start in range(0, rows, together):
            some = slice(start, start + together)
            columns = max(self.lengths[some]) + 1
            outputs.append(
                attend(
                    shared[some],
                    key[some, :, :columns],
                    value[some, :, :columns],
                    attn_mask=None if bias is None else bias[some, ..., :columns],
                    scale=scaling,
                )
            )
        return torch.cat(outputs).view(rows, 1, heads, size)

    def _in_float32(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any) -> torch.Tensor:
        """`scaled_dot_product_attention` of float32 copies; what it gives has the type of `query`."""
        if self._copies.shape[1] < key.numel():
            self._copies = torch.empty(2, max(COPIED_ELEMENTS, key.numel()))
        keys, values = (
            copy[: states.numel()].view(states.shape).copy_(states)
            for copy, states in zip(self._copies, (key, value), strict=True)
        )
        return F.scaled_dot_product_attention(query.float(), keys, values, **more).to(query.dtype)

    def _bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """0 or -inf, (b, 1, 1, columns); None where every row sees every column."""
        if window is not None and self._columns <= window:
            window = None
        if (window, dtype) not in self._biases:
            hidden = None
            column = torch.arange(self._columns, device=self._device)
            if not self._even:
                hidden = column > self._ends[:, None]
            if window is not None:
                gone = column <= self._ends[:, None] - window
                hidden = gone if hidden is None else hidden | gone
            self._biases[window, dtype] = None if hidden is None else _bias_of(hidden, dtype)
        return self._biases[window, dtype]

    def _target(self, heads: int, width: int) -> torch.Tensor:
        """The places of the new column among the rows of a room (places * heads * width, head_dim)."""
        if (heads, width) not in self._targets:
            rows = torch.arange(len(self.lengths) * heads, device=self._device)
            self._targets[heads, width] = rows * width + self._ends.repeat_interleave(heads)
        return self._targets[heads, width]


def _bias_of(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(hidden, -torch.inf)[:, None, None]


def arranged(wanted: Iterable[tuple[Any, int | None]], order: Sequence[Any]) -> list[int]:
    """A place for each of `wanted`, (kind, place so far or None): kinds side by side in `order`, few rows moving."""
    wanted = list(wanted)
    places: list[int] = [-1] * len(wanted)
    start = 0
    for kind in order:
        group = [index for index, (of, _) in enumerate(wanted) if of == kind]
        region = range(start, start + len(group))
        start += len(group)
        for index in group:
            if wanted[index][1] in region:
                places[index] = wanted[index][1]
        free = iter(sorted({*region} - {places[index] for index in group}))
        for index in group:
            if places[index] < 0:
                places[index] = next(free)
    return places
