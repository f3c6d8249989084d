"""Examples → token ids, once → optimizer steps → micro-batches → tensors, packed or padded. Knows no model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler

from glmstudio.data.example import Example
from glmstudio.models.chat_format import Rendered, render_examples
from glmstudio.models.varlen import LEAST_SHARED
from glmstudio.settings import TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.base import Base

# Where rows are padded, those of that many optimizer steps are drawn at random, then sorted by length: enough to leave
# little padding, few enough that the rows of a step still change from epoch to epoch.
STEPS_IN_POOL = 16
# What a tokenizer is given at a time.
ROWS_AT_ONCE = 512


def render_rows(base: "Base", examples: Sequence[Example], settings: TrainingSettings) -> list[Rendered]:
    """Token ids and loss mask of every example in the settings' prompt style, cut to their lengths."""
    texts = [(example.instruction, example.input, example.target) for example in examples]
    rendered: list[Rendered] = []
    for start in range(0, len(texts), ROWS_AT_ONCE):
        rendered += render_examples(
            base.tokenizer,
            base.family,
            texts[start : start + ROWS_AT_ONCE],
            max_source_length=settings.max_source_length,
            max_target_length=settings.max_target_length,
            style=settings.prompt_style,
        )
    return rendered


class StepSampler(Sampler[list[int]]):
    """Row numbers of whole optimizer steps, every row once an epoch, the longest rows of a step first.

    The rows of a step are drawn at random; with `alike` they are of like length, which leaves little padding but makes
    steps unlike each other: where lengths tell tasks apart, each step has one task. They depend on the size of a step,
    `seed` and the epoch only, never on how a step is cut. The last step takes what is left. Global random numbers are
    not touched.
    """

    drop_last = False

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, *, alike: bool) -> None:
        self.batch_size = batch_size
        self._in_pool = batch_size * (STEPS_IN_POOL if alike else 1)
        self._lengths = np.asarray(lengths, np.int64)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the epoch that is iterated next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        whole, rest = self.steps()
        yield from whole.tolist()
        if len(rest):
            yield rest.tolist()

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """The row numbers of an epoch: those of whole steps (steps, batch size), and those of the last one, if any."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        shuffled, rows = torch.randperm(len(self._lengths), generator=generator).numpy(), len(self._lengths)
        pools = rows // self._in_pool * self._in_pool
        parts = (shuffled[:pools].reshape(-1, self._in_pool), shuffled[pools:].reshape(1, -1))
        ordered = np.concatenate([self._longest_first(part).ravel() for part in parts])
        whole = rows // self.batch_size
        order = torch.randperm(whole, generator=generator).numpy()
        steps = ordered[: whole * self.batch_size].reshape(whole, self.batch_size)
        return steps[order], ordered[whole * self.batch_size :]

    def _longest_first(self, pools: np.ndarray) -> np.ndarray:
        return np.take_along_axis(pools, np.argsort(-self._lengths[pools], axis=1, kind="stable"), axis=1)


def split_step(
    rows: Sequence[int], lengths: Sequence[int], *, token_budget: int, batch_size: int, padded: bool = False
) -> list[list[int]]:
    """The micro-batches of the rows of a step, in their order; `lengths` are those of all rows, by number.

    At most `token_budget` tokens each, but at least one row; without a budget (0) `batch_size` rows each.
    """
    if not token_budget:
        return [list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    parts: list[list[int]] = []
    for row in rows:
        if not parts or computed_tokens([*parts[-1], row], lengths, padded=padded) > token_budget:
            parts.append([])
        parts[-1].append(row)
    return parts


def computed_tokens(rows: Sequence[int], lengths: Sequence[int], *, padded: bool) -> int:
    """The tokens that a micro-batch of these rows costs; of a padded one the padding counts, too."""
    sizes = [lengths[row] for row in rows]
    return len(sizes) * max(sizes) if padded else sum(sizes)


def pack(rows: Sequence[Rendered], *, shares: bool = False) -> dict[str, Any]:
    """Tensors of a micro-batch, its rows end to end without padding.

    `input_ids` is (1, total) int64, sections of `lengths` tokens. Section i goes on where section `continues[i]` ends,
    or begins a row where that is None: with `shares`, what rows begin with alike lies there once. The rest is as
    `collate` has it, for the flattened hidden states (total).
    """
    ids: list[int] = []
    lengths: list[int] = []
    continues: list[int | None] = []
    ordered: list[Rendered] = []
    positions: list[Sequence[int]] = []

    def lay(section: Sequence[int], front: int | None) -> range:
        ids.extend(section)
        lengths.append(len(section))
        continues.append(front)
        return range(len(ids) - len(section), len(ids))

    for begin, group in _alike(rows) if shares else [(0, rows)]:
        front = len(lengths) if begin else None
        before = lay(group[0].ids[:begin], None) if begin else range(0)
        for row in group:
            positions.append([*before, *lay(row.ids[begin:], front)])
            ordered.append(row)
    return {
        "input_ids": torch.tensor([ids]),
        "lengths": lengths,
        "continues": continues,
        **_goals(ordered, positions),
    }


def collate(rows: Sequence[Rendered]) -> dict[str, Any]:
    """Tensors of a micro-batch, padded on the right to its longest row only.

    `input_ids` and `attention_mask` (1 = token) are (b, s) int64. `places` (n,) are the positions of the flattened
    (b * s) hidden states that predict a token which bears loss, `targets` (n,) those tokens. `tokens` counts real ones.
    """
    width = max(len(row.ids) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        input_ids[number, : len(row.ids)] = torch.tensor(row.ids)
        attention_mask[number, : len(row.ids)] = 1
    goals = _goals(rows, [range(start, start + width) for start in range(0, len(rows) * width, width)])
    return {"input_ids": input_ids, "attention_mask": attention_mask, **goals}


def _alike(rows: Sequence[Rendered]) -> list[tuple[int, Sequence[Rendered]]]:
    """Groups of rows with how many tokens all of a group begin with, chosen to save the most tokens.

    No token that bears loss and no row's last one is among them; fewer than `LEAST_SHARED` count as none.
    """
    begin = min(row.bears_loss.index(True) if any(row.bears_loss) else len(row.ids) - 1 for row in rows)
    first, last = (choose(row.ids for row in rows) for choose in (min, max))
    begin = next((place for place in range(begin) if first[place] != last[place]), begin)
    together = [(begin if begin >= LEAST_SHARED and len(rows) > 1 else 0, rows)]
    branches: dict[int, list[Rendered]] = {}
    for row in rows:
        branches.setdefault(row.ids[begin], []).append(row)
    if len(branches) == 1:
        return together
    apart = [group for branch in branches.values() for group in _alike(branch)]
    return max(together, apart, key=lambda groups: sum(begin * (len(group) - 1) for begin, group in groups))


def _goals(rows: Sequence[Rendered], positions: Sequence[Sequence[int]]) -> dict[str, Any]:
    places, targets = [], []
    for row, where in zip(rows, positions, strict=True):
        bearing = [place for place, bears in enumerate(row.bears_loss) if bears]
        places += [where[place - 1] for place in bearing]
        targets += [row.ids[place] for place in bearing]
    tokens = sum(len(row.ids) for row in rows)
    return {"places": torch.tensor(places), "targets": torch.tensor(targets), "tokens": tokens}


def by_length(lengths: Sequence[int]) -> list[int]:
    """Row numbers, the longest first, so that what is cut out of them has little padding."""
    return sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
