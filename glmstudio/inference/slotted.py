"""Rows that are being answered, each in a place of its own: new ones enter while others go on, and what they begin with
as another one does is not computed again.

Token ids and tensors: knows no sampling and no end of an answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.inference.rows import Row
from glmstudio.models.slots import Entering, Slots, Step, arranged, part_length
from glmstudio.models.varlen import LEAST_SHARED, is_causal, packed_inputs

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident

# New rows enter in passes of about so many tokens: longer ones gain nothing, and others wait for their turn.
PASS_TOKENS = 2048


@dataclass(eq=False)
class _Running:
    number: int
    prompt: list[int]
    adapter: str
    place: int | None = None
    # In which of the passes of `enter` it comes in; 0 for one that did so before.
    entry: int = 1
    # The row whose first states it takes over, and of how many tokens.
    front: "_Running | None" = None
    shared: int = 0
    # The token that is to be run next and its position, for ChatGLM-6B one in each of its two rows.
    token: int = 0
    position: list[int] | None = None


class SlottedRows:
    """`numbers` are those of the rows in work, in the order in which `step` gives their logits.

    At most `places` rows are in work; rows of the same adapter lie side by side.
    """

    def __init__(self, resident: "Resident", places: int) -> None:
        self._resident = resident
        self._slots = Slots(places)
        self._rows: list[_Running] = []
        self._order: list[str] = []
        # On a card what this saves is less than the passes with a past cost, which take row by row.
        self._shares = resident.base.device.type == "cpu" and is_causal(resident.base.model.config)

    @property
    def numbers(self) -> list[int]:
        return [row.number for row in self._rows]

    @property
    def places(self) -> int:
        return self._slots.places

    @property
    def free(self) -> int:
        """How many rows may enter."""
        return self.places - len(self._rows)

    def enter(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[int], torch.Tensor]:
        """Runs the prompts of new rows, (number, row) each; gives numbers and the logits (n, vocabulary) of their first
        tokens, which `take` is to be called with in the same order."""
        # Neighbours of like length, see `slots.NEIGHBOURS`.
        ordered = sorted(rows, key=lambda pair: -len(pair[1].ids))
        new = [_Running(number, row.ids, row.adapter) for number, row in ordered]
        self._order += dict.fromkeys(row.adapter for row in new if row.adapter not in self._order)
        self._arrange(self._rows + new)
        if self._shares:
            _find_fronts(new, [row for row in self._rows if row not in new])
        new.sort(key=lambda row: (row.entry, row.place))
        for row, prefix in zip(new, self._resident.prefixes([row.adapter for row in new]), strict=True):
            if prefix is not None:
                self._slots.put(row.place, prefix)
                self._slots.lengths[row.place] = part_length(prefix)
        logits = [self._entered(group) for group in self._groups(new)]
        for row in new:
            row.entry, row.front = 0, None
        self._taking = new
        return [row.number for row in new], torch.cat(logits)

    def step(self) -> torch.Tensor:
        """Runs the waiting token of every row; (b, vocabulary)."""
        device = self._resident.base.device
        ids = torch.tensor([[row.token] for row in self._rows], device=device)
        positions = torch.tensor([row.position for row in self._rows], device=device)
        self._taking = self._rows
        output: Any = self._resident.forward_slots(
            [row.adapter for row in self._rows],
            Step(self._slots, device),
            input_ids=ids,
            position_ids=positions[..., None] if positions.shape[1] > 1 else positions,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def take(self, picked: Sequence[int]) -> None:
        """The tokens for the rows whose logits were last given."""
        for row, token in zip(self._taking, picked, strict=True):
            row.token = token
            row.position[-1] += 1

    def leave(self, numbers: Sequence[int]) -> None:
        """Takes rows out of work."""
        self._arrange([row for row in self._rows if row.number not in numbers])

    def _arrange(self, rows: list[_Running]) -> None:
        places = arranged([(row.adapter, row.place) for row in rows], self._order)
        pairs = [
            (row.place, place)
            for row, place in zip(rows, places, strict=True)
            if row.place is not None and row.place != place
        ]
        self._slots.move(pairs)
        lengths = [0] * len(rows)
        for row, place in zip(rows, places, strict=True):
            lengths[place] = 0 if row.place is None else self._slots.lengths[row.place]
        for row, place in zip(rows, places, strict=True):
            row.place = place
        self._slots.lengths = lengths
        self._rows = sorted(rows, key=lambda row: row.place)

    def _groups(self, new: list[_Running]) -> Iterator[list[_Running]]:
        """Rows that enter in one pass."""
        group: list[_Running] = []
        tokens = 0
        for row in new:
            length = len(row.prompt) - row.shared
            if group and (row.entry != group[-1].entry or tokens + length > PASS_TOKENS):
                yield group
                group, tokens = [], 0
            group.append(row)
            tokens += length
        yield group

    def _entered(self, group: list[_Running]) -> torch.Tensor:
        base = self._resident.base
        for row in group:
            if row.front is not None:
                columns = self._slots.lengths[row.place] + row.shared
                self._slots.copy([(row.front.place, row.place)], columns)
                self._slots.lengths[row.place] = columns
        lengths = [len(row.prompt) - row.shared for row in group]
        ids = torch.tensor([[token for row in group for token in row.prompt[row.shared :]]], device=base.device)
        inputs = packed_inputs(base.model.config, ids, lengths)
        contexts = inputs.pop("packing").contexts
        shared = torch.tensor([row.shared for row in group], device=base.device)
        inputs["position_ids"] += shared.repeat_interleave(torch.tensor(lengths, device=base.device))
        packing = Entering(self._slots, [row.place for row in group], lengths, contexts)
        ends = packing.ends
        for row, position in zip(group, inputs["position_ids"][..., ends].movedim(-1, 0).tolist(), strict=True):
            row.position = position[0] if isinstance(position[0], list) else position
        output: Any = self._resident.forward_slots(
            [row.adapter for row in group], packing, logits_to_keep=torch.tensor(ends, device=base.device), **inputs
        )
        return output.logits[0]


def _find_fronts(new: Sequence[_Running], running: Sequence[_Running]) -> None:
    """Sets `front`, `shared` and `entry` of new rows that begin as others of their adapter do, running or new.

    Another pass must save `LEAST_SHARED` tokens more. A row's last token is always its own.
    """
    known = list(running)
    for row in new:
        best = 0
        for other in known:
            if other.adapter != row.adapter:
                continue
            shared = _alike(row.prompt[:-1], other.prompt)
            saved = shared - LEAST_SHARED * max(1, other.entry)
            if saved >= best:
                best = saved + 1
                row.front, row.shared, row.entry = other, shared, other.entry + 1
        known.append(row)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
