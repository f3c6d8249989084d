"""What a run will take: memory in its parts and seconds, from a probe and the rows' real lengths, before it starts.

Also what to change where it does not fit. Knows no model and no words.
"""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING

import numpy as np

from glmstudio import quantities
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.models.devices import free_memory
from glmstudio.models.inspection.memory_needs import BYTES_PER_ADAPTER_NUMBER, BYTES_PER_NUMBER, ROWS_ANSWERED
from glmstudio.settings import TrainingSettings
from glmstudio.training.batches import StepSampler, split_step
from glmstudio.training.check import optimizer_steps
from glmstudio.training.held import HOLES

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident
    from glmstudio.training.probe import Probe
    from glmstudio.training.token_counts import RowSizes

# (tokens, target tokens) of rows: lists of pairs, or an array (rows, 2).
Sizes = Sequence[Sequence[int]]
Size = tuple[int, int]
# What oneDNN comes to keep, a program for every new size of a product, by device and bytes of a number. On an AMD EPYC
# 80 MiB were 6 to 11 % above the measured peak of 0.9 GB, these are 2 to 6 %.
PROGRAMS = {("cpu", 2): 40 * 2**20}
# Of that many steps the micro-batches are looked at: those with the most tokens have the largest, or nearly.
HEAVY_STEPS = 16
# Lengths that advice is given in.
ROUND_TOKENS = 16
PARTS = ("weights", "process", "packed", "adapter", "activations", "logits", "cache")


@dataclass(frozen=True)
class Estimate:
    """Bytes of each part, of all (`total`) and of what the run may take (`room`); `seconds` with its evaluations, None
    where memory was short for measuring them.

    `process` is what the process holds beside the weights; `logits` what the head adds to the highest point of the
    decoder, which is in `activations`; `cache` is for answers meanwhile. `token_budget` (0: a batch) and
    `gradient_checkpointing` are what to train with.
    """

    weights: int
    process: int
    packed: int
    adapter: int
    activations: int
    logits: int
    cache: int
    room: int
    seconds: float | None
    token_budget: int
    gradient_checkpointing: bool

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in PARTS)

    @property
    def fits(self) -> bool:
        return self.total <= self.room


def planned(
    resident: "Resident", probe: "Probe", rows: "RowSizes", settings: TrainingSettings
) -> tuple[list[Finding], Estimate]:
    """(`shortage`, `estimate`) for these rows on this base and the memory of this moment. Prompts that are cut count as
    long as they may be."""
    sizes = rows.of_train, rows.of_dev
    free = free_memory(resident.base.device) + resident.memory_bytes - probe.held
    if probe.device == "cpu":
        # The processes of a run share the machine's memory.
        free //= settings.num_processes
    found = estimate(probe, *sizes, settings, free=free)
    return shortage(found, probe, *sizes, settings, free=free), found


def unmeasured(error: StudioError) -> Finding:
    """Why a probe came to nothing: a family that breaks off would do so in a run, where memory is short it may fit, and
    a base in parts nobody measures."""
    severity = {"probe-short": "warning", "probe-parts": "info"}.get(error.code, "error")
    return Finding(error.code, severity, params=dict(error.params))


def most_tokens(rows: "RowSizes", settings: TrainingSettings) -> int:
    """Of the run's micro-batches, those of the largest, where memory does not ask for smaller ones."""
    steps = _heaviest(rows.of_train, settings, padded=False)
    rows = _micro_batch(steps, settings.per_device_train_batch_size, settings.token_budget, padded=False)
    return sum(tokens for tokens, _ in rows)


def estimate(probe: "Probe", train: Sizes, dev: Sizes, settings: TrainingSettings, *, free: int) -> Estimate:
    """For rows of these sizes, in each of the run's processes; `free` bytes are there beside what is held.

    Gradient checkpointing that is "auto" is on where not even the longest row would fit without. A token budget of 0
    stays where a batch fits, else it is the largest that does. What does not fit at all has the least that it needs.
    """
    train, dev = _array(train), _array(dev)
    batch, steps = settings.per_device_train_batch_size, _heaviest(train, settings, padded=probe.padded)
    row = int(train[:, 0].max())
    most = batch * row
    for checkpointing in {"auto": (False, True), "on": (True,), "off": (False,)}[settings.gradient_checkpointing]:

        def needs(budget: int, checkpointing: bool = checkpointing) -> Estimate:
            rows = _micro_batch(steps, batch, budget, padded=probe.padded)
            return _needs(probe, rows, settings, free, checkpointing, budget)

        found = needs(settings.token_budget)
        if not found.fits and not settings.token_budget:
            # To a sixteenth of the longest row.
            budgets = range(row, most, max(1, row // 16))
            fitting = bisect_left(budgets, True, key=lambda budget: not needs(budget).fits)
            found = needs(budgets[max(0, fitting - 1)])
        if found.fits:
            break
    return dataclasses.replace(found, seconds=_seconds(probe, train, dev, settings, found))


def shortage(
    found: Estimate,
    probe: "Probe",
    train: Sizes,
    dev: Sizes,
    settings: TrainingSettings,
    *,
    free: int,
) -> list[Finding]:
    """Nothing where the run fits; else the error `memory-short` and, as infos, every way that would fit, or
    `memory-nothing`."""
    if found.fits:
        return []

    def least(probe: "Probe", longest: int, free: int) -> Estimate:
        shorter = [np.minimum(_array(rows), longest) for rows in (train, dev)]
        free_choice = dataclasses.replace(settings, gradient_checkpointing="auto", token_budget=0)
        return estimate(probe, *shorter, free_choice, free=free)

    short = Finding(
        "memory-short", "error", params={"need": quantities.size(found.total), "room": quantities.size(found.room)}
    )
    ways = [*_ways(probe, int(_array(train)[:, 0].max()), free, least)]
    return [short, *(ways or [Finding("memory-nothing", "info")])]


def _ways(probe: "Probe", longest: int, free: int, least: Callable[["Probe", int, int], Estimate]) -> Iterator[Finding]:
    """Every way that would fit, with what it needs."""

    def way(code: str, found: Estimate, **params: object) -> Iterator[Finding]:
        if found.fits:
            yield Finding(code, "info", params={"need": quantities.size(found.total), **params})

    free_choice = least(probe, longest, free)
    yield from way("memory-automatic", free_choice)
    if not free_choice.fits:
        lengths = range(ROUND_TOKENS, longest, ROUND_TOKENS)
        fitting = bisect_left(lengths, True, key=lambda tokens: not least(probe, tokens, free).fits)
        for tokens in lengths[:fitting][-1:]:
            yield from way("memory-lengths", least(probe, tokens, free), tokens=tokens)
    if probe.quantization == "none":
        for kind, size in BYTES_PER_NUMBER.items():
            freed = round(probe.linear * (probe.number_bytes - size))
            # Quantised layers are not packed.
            smaller = dataclasses.replace(probe, weights=probe.weights - freed, held=probe.held - freed, packed=0)
            yield from way("memory-quantised", least(smaller, longest, free + freed), quantization=kind)


def _needs(
    probe: "Probe", rows: Sequence[Size], settings: TrainingSettings, free: int, checkpointing: bool, budget: int
) -> Estimate:
    """What a run takes whose largest micro-batch has these rows, the longest first."""
    factor = HOLES[probe.device][checkpointing]
    activations, logits = _tensors(probe, rows, checkpointing)
    answered = settings.max_source_length + settings.max_target_length
    return Estimate(
        weights=probe.weights,
        process=max(0, probe.held - probe.weights) + PROGRAMS.get((probe.device, probe.number_bytes), 0),
        packed=probe.packed,
        adapter=BYTES_PER_ADAPTER_NUMBER * probe.adapter,
        activations=round(factor * activations),
        logits=round(factor * logits),
        cache=ROWS_ANSWERED * answered * probe.cached,
        room=probe.held + free,
        seconds=0.0,
        token_budget=budget,
        gradient_checkpointing=checkpointing,
    )


def _array(sizes: Sizes) -> np.ndarray:
    return np.asarray(sizes, np.int64).reshape(-1, 2)


def _heaviest(train: np.ndarray, settings: TrainingSettings, *, padded: bool) -> list[list[Size]]:
    """The steps of the run with the most tokens, the first process's part of each."""
    sampler = StepSampler(train[:, 0], settings.rows_in_step, settings.seed, alike=padded)
    heavy: list[tuple[int, list[int]]] = []
    for epoch in range(math.ceil(settings.num_train_epochs)):
        sampler.set_epoch(epoch)
        heavy = nlargest(HEAVY_STEPS, [*heavy, *_heaviest_of(sampler, train[:, 0])], key=lambda step: step[0])
    return [[tuple(train[row].tolist()) for row in step[:: settings.num_processes]] for _, step in heavy]


def _heaviest_of(sampler: StepSampler, lengths: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """(tokens, rows) of the steps of an epoch with the most tokens, those of equal ones that come first."""
    whole, rest = sampler.steps()
    tokens = lengths[whole].sum(axis=1)
    for place in np.argsort(-tokens, kind="stable")[:HEAVY_STEPS]:
        yield int(tokens[place]), whole[place].tolist()
    if len(rest):
        yield int(lengths[rest].sum()), rest.tolist()


def _micro_batch(steps: Sequence[Sequence[Size]], batch: int, budget: int, *, padded: bool) -> list[Size]:
    """The largest of all micro-batches that these steps begin with, where their longest rows are."""

    def first(step: Sequence[Size]) -> list[Size]:
        lengths = [row for row, _ in step]
        rows, *_ = split_step(range(len(step)), lengths, token_budget=budget, batch_size=batch, padded=padded)
        return [step[row] for row in rows]

    return max(map(first, steps), key=lambda rows: sum(tokens for tokens, _ in rows))


def _tensors(probe: "Probe", rows: Sequence[Size], checkpointing: bool) -> tuple[float, float]:
    """(the most that the decoder needs, what the head adds to it), in bytes."""
    foot = probe.checkpointed if checkpointing else probe.plain
    # Prefixes lie before padded rows: every row is as long as the longest.
    lengths = [rows[0][0]] * len(rows) if probe.padded else [row for row, _ in rows]
    squares = sum(length**2 for length in lengths if length <= probe.longest_square)
    targets = sum(goal for _, goal in rows)
    most = foot.most.at(sum(lengths), squares)
    head = foot.saved.at(sum(lengths), squares) + probe.target * min(targets, probe.chunk) + probe.slope * targets
    look = probe.look * rows[0][0]
    return most, max(0.0, head - most, look - most)


def _seconds(
    probe: "Probe", train: np.ndarray, dev: np.ndarray, settings: TrainingSettings, found: Estimate
) -> float | None:
    if probe.both is None:
        return None
    steps = optimizer_steps(len(train), settings)
    tokens, of_dev = (int(rows[:, 0].sum()) / settings.num_processes for rows in (train, dev))
    at_once = found.token_budget or settings.per_device_train_batch_size * int(train[:, 0].sum()) / len(train)
    epochs, recomputed = settings.num_train_epochs, probe.forward.token if found.gradient_checkpointing else 0.0
    trained = epochs * tokens * (probe.both.token + recomputed)
    trained += max(steps, epochs * tokens / at_once) * probe.both.fixed + steps * probe.step
    evaluation = of_dev * probe.forward.token + math.ceil(of_dev / at_once) * probe.forward.fixed
    evaluations = steps // settings.eval_steps if settings.eval_steps else math.ceil(epochs)
    return trained + evaluations * evaluation
