"""Rows that are being answered, each in a place of its own: new ones enter while others go on.

Token ids and tensors: knows no sampling and no end of an answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.inference.rows import Row
from glmstudio.models.slots import Entering, Slots, Step, arranged, part_length
from glmstudio.models.varlen import packed_inputs

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident

# New rows enter in passes of about so many tokens: longer ones gain nothing, and others wait for their turn.
PASS_TOKENS = 2048


@dataclass(eq=False)
class _Running:
    number: int
    adapter: str
    place: int | None = None
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

    @property
    def numbers(self) -> list[int]:
        return [row.number for row in self._rows]

    @property
    def free(self) -> int:
        """How many rows may enter."""
        return self._slots.places - len(self._rows)

    def enter(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[int], torch.Tensor]:
        """Runs the prompts of new rows, (number, row) each; gives numbers and the logits (n, vocabulary) of their first
        tokens, which `take` is to be called with in the same order."""
        prompts = {number: row.ids for number, row in rows}
        # Neighbours of like length, see `slots.NEIGHBOURS`.
        new = [_Running(number, row.adapter) for number, row in sorted(rows, key=lambda pair: -len(pair[1].ids))]
        self._order += dict.fromkeys(row.adapter for row in new if row.adapter not in self._order)
        self._arrange(self._rows + new)
        new.sort(key=lambda row: row.place)
        for row, prefix in zip(new, self._resident.prefixes([row.adapter for row in new]), strict=True):
            if prefix is not None:
                self._slots.put(row.place, prefix)
                self._slots.lengths[row.place] = part_length(prefix)
        logits = [self._entered(group, prompts) for group in self._groups(new, prompts)]
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

    def _groups(self, new: list[_Running], prompts: dict[int, list[int]]) -> Iterator[list[_Running]]:
        """Rows that enter in one pass."""
        mixed = self._resident.mixes([row.adapter for row in new])
        group: list[_Running] = []
        tokens = 0
        for row in new:
            length = len(prompts[row.number])
            if group and (not mixed or tokens + length > PASS_TOKENS):
                yield group
                group, tokens = [], 0
            group.append(row)
            tokens += length
        yield group

    def _entered(self, group: list[_Running], prompts: dict[int, list[int]]) -> torch.Tensor:
        base = self._resident.base
        lengths = [len(prompts[row.number]) for row in group]
        ids = torch.tensor([[token for row in group for token in prompts[row.number]]], device=base.device)
        inputs = packed_inputs(base.model.config, ids, lengths)
        contexts = inputs.pop("packing").contexts
        packing = Entering(self._slots, [row.place for row in group], lengths, contexts)
        ends = packing.ends
        for row, position in zip(group, inputs["position_ids"][..., ends].movedim(-1, 0).tolist(), strict=True):
            row.position = position[0] if isinstance(position[0], list) else position
        output: Any = self._resident.forward_slots(
            [row.adapter for row in group], packing, logits_to_keep=torch.tensor(ends, device=base.device), **inputs
        )
        return output.logits[0]
