"""A few passes of the real loss on small made-up rows: what a run will hold in memory and how fast it will go.

Memory of a micro-batch is a fixed part, a part for each token and a part for each row's tokens squared, so three small
passes tell it for every size. Knows no rows of a person, no settings of the optimizer and no page.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.errors import StudioError, first_line
from glmstudio.models.adapters.prefix import PrefixShape
from glmstudio.models.chat_format import Rendered
from glmstudio.models.devices import free_memory as free_on
from glmstudio.models.flash import HALF
from glmstudio.models.inspection.memory_needs import BYTES_PER_ADAPTER_NUMBER
from glmstudio.models.positions import positions_of
from glmstudio.models.resident import Resident
from glmstudio.models.varlen import SHORT_TOKENS, is_causal
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.frozen_linears import SHARE_OF_FREE, drop_frozen_linears, use_frozen_linears
from glmstudio.training.held import HOLES, held
from glmstudio.training.loss import LARGEST_CHUNK, FrozenHeadLoss, batch_form, ready, target_loss
from glmstudio.training.memory_shortage import free_memory, is_shortage
from glmstudio.training.thin import drop_thin_products, use_thin_products

if TYPE_CHECKING:
    from glmstudio.models.base import Base

# Rows of the passes have so many tokens, or twice as many, where the base has positions for them.
TOKENS = 64
# Passes of so many rows tell the pace; the larger one has fewer where it would take longer than this, or be larger than
# the run's.
PACED_ROWS = (2, 12)
PATIENCE_SECONDS = 3.0
# Shorter rows tell nothing.
FEWEST_TOKENS = 16
# The first pass of all is slower than those behind it.
TRIES = 2
# Begins a turn with a model in training.
Trained = Callable[..., AbstractContextManager[tuple[torch.nn.Module, int]]]


class _Stopped(Exception):
    """Whoever asked for the probe does not wait for it any more."""


@dataclass(frozen=True)
class Growth:
    """Bytes (or seconds) of a micro-batch: `fixed`, for each token, for each row's tokens squared."""

    fixed: float
    token: float
    square: float = 0.0

    def at(self, tokens: int, squares: int = 0) -> float:
        return self.fixed + self.token * tokens + self.square * squares


@dataclass(frozen=True)
class Footprint:
    """Bytes of a micro-batch: `saved` for the way back, and at most in the decoder, there and `back`."""

    saved: Growth
    most: Growth


@dataclass(frozen=True)
class Probe:
    """What one kind of adapter costs on one base. Bytes and seconds.

    `held` is what process or card holds without a run, `weights` of it the base; `linear` are the numbers in its linear
    layers, where they are not quantised. `target` is the head's need for each of at most `chunk` targets at a time,
    `slope` what stays of each. `look` is what the first look at a row takes for each token; `cached` a token of an
    answer's cache. Rows longer than `longest_square` have no part for their tokens squared; `padded` ones are as long
    as the longest. `forward`, `both` and `step` are None where there was no memory to measure them.
    """

    device: str
    number_bytes: int
    held: int
    weights: int
    linear: int
    quantization: str
    packed: int
    adapter: int
    plain: Footprint
    checkpointed: Footprint
    target: float
    slope: int
    chunk: int
    look: int
    cached: int
    longest_square: int
    padded: bool
    forward: Growth | None
    both: Growth | None
    step: float | None


def probe(
    resident: Resident,
    lora: LoraSettings,
    settings: TrainingSettings,
    *,
    most: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Probe | None:
    """Measures with throw-away adapters, and takes no more memory than a run with at `most` so many tokens at a time.

    Each pass has its turn, those that tell the pace have one together; between two passes others go first for as long
    as they ask. Random numbers, finished adapters and modes stay as they were. None where it was stopped, or where a
    run has begun on this base meanwhile.

    Raises StudioError as `Resident.begin_training` does, `probe-failed` where a pass of this family breaks off and
    `probe-short` where memory is short for the first ones.
    """
    base = resident.base
    tokens, rows = extent(base, most)
    trained = partial(_thrown_away, resident, lora, settings, should_stop)
    held_by = partial(_held_by, trained, base)
    try:
        if base.device.type == "cuda":
            # The card's counters see all that is there: what is let go of meanwhile would count as if a pass had needed
            # less, and the first products of each thread take workspaces, which stay.
            free_memory()
            held_by(1, tokens, False)
        shapes = ((1, tokens), (2, tokens), (1, 2 * tokens))
        plain, checkpointed = ([held_by(*shape, on) for shape in shapes] for on in (False, True))
        target = _held_for_target(trained, base)
        footprint = _footprint(plain, tokens)
        paces = _paces(trained, resident, footprint.most, tokens, rows, should_stop)
    except _Stopped:
        return None
    except StudioError:
        raise
    except Exception as error:  # A family of transformers can break off in its own way, and a run would as well.
        if is_shortage(error):
            raise StudioError("probe-short") from None
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise StudioError("probe-failed", family=base.family.name, reason=reason) from error
    free_memory()
    head = base.model.get_output_embeddings().weight
    number_bytes = base.dtype.itemsize
    return Probe(
        device=base.device.type,
        number_bytes=number_bytes,
        held=resident.memory_bytes,
        weights=resident.weight_bytes,
        linear=_linear_numbers(base.model, head),
        quantization=base.quantization,
        plain=footprint,
        checkpointed=_footprint(checkpointed, tokens),
        target=target,
        slope=2 * head.shape[1] * number_bytes,
        chunk=max(1, LARGEST_CHUNK // head.shape[0]),
        look=2 * head.shape[0] * number_bytes,
        cached=_cached_bytes(resident),
        longest_square=SHORT_TOKENS if base.dtype in HALF and settings.method == "lora" else 2**31,
        **paces,
    )


def extent(base: "Base", most: int) -> tuple[int, int]:
    """(tokens of a row, most rows of a pass) of the probe for a run with at most so many tokens at a time."""
    positions = positions_of(base.model)
    tokens = max(2, min(TOKENS, positions.limit // 2)) if positions.table else TOKENS
    tokens = min(tokens, max(FEWEST_TOKENS, most // 2))
    return tokens, max(PACED_ROWS[0], min(PACED_ROWS[1], most // tokens))


@contextmanager
def _thrown_away(
    resident: Resident,
    lora: LoraSettings,
    settings: TrainingSettings,
    should_stop: Callable[[], bool],
    share: float = 0.0,
) -> Iterator[tuple[torch.nn.Module, int]]:
    """(a model in training, the bytes of its packed copies) in a turn of its own; afterwards everything is as before.

    Of the free memory, `share` may be taken for packed copies."""
    base = resident.base
    on_card = base.device.type == "cuda"
    with (
        resident.gate.turn(),
        torch.cuda.device(base.device) if on_card else nullcontext(),
        torch.random.fork_rng(devices=[base.device] if on_card else []),
    ):
        _let_others_go_first(resident, should_stop)
        if resident.in_training:
            # The turn came late, and is lent by a run: the adapter there is the run's.
            raise _Stopped
        try:
            model = resident.begin_training(lora, settings)
            use_thin_products(model)
            packed = use_frozen_linears(resident, share)
            model.train()
            yield model, packed
        finally:
            drop_frozen_linears(resident)
            drop_thin_products(base.model)
            resident.end_training()


def _held_by(trained: Trained, base: "Base", rows: int, tokens: int, checkpointing: bool) -> tuple[int, int, int]:
    """(bytes saved for the way back, most on the way there, most on the way back) of one pass."""
    with trained() as (model, _):
        batch = _batch(model, [tokens] * rows, 1, base.device)
        try:
            if checkpointing:
                model.activation_checkpointing_enable()
            with ready(model), held([model, base.model], base.device) as found:
                loss = target_loss(model, batch)
                saved, there = found.now, found.most
                found.mark()
                loss.backward()
                back = found.most
        finally:
            base.model.activation_checkpointing_disable()
    return saved, there, back


def _held_for_target(trained: Trained, base: "Base") -> float:
    """Bytes that head and loss need for each target of a chunk. In a pass, what the decoder needs could hide them."""
    peaks = []
    with trained() as (model, _):
        head = base.model.get_output_embeddings()
        for targets in (TOKENS, 2 * TOKENS):
            hidden = torch.zeros(targets, head.weight.shape[1], dtype=base.dtype, device=base.device)
            goals = torch.zeros(targets, dtype=torch.long, device=base.device)
            with held([model, base.model], base.device) as found:
                FrozenHeadLoss.apply(hidden.requires_grad_(), head, goals)
                peaks.append(found.most)
    return (peaks[1] - peaks[0]) / TOKENS


def _let_others_go_first(resident: Resident, should_stop: Callable[[], bool]) -> None:
    resident.gate.give_way(until=should_stop)
    if should_stop():
        raise _Stopped


def _paces(
    trained: Trained, resident: Resident, most: Growth, tokens: int, rows: int, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Seconds of passes without and with the way back, and of an optimizer's step, None where memory is short for them;
    what else is seen meanwhile. A pass takes `most`, the largest has at most so many `rows` of so many `tokens`."""
    found: dict[str, Any] = dict.fromkeys(("forward", "both", "step"))
    try:
        with trained(share=SHARE_OF_FREE) as (model, packed):
            numbers = sum(part.numel() for part in model.parameters() if part.requires_grad)
            padded = "attention_mask" in _batch(model, [tokens], 1, resident.base.device)
            found |= {"packed": packed, "adapter": numbers, "padded": padded}
            timed = _timed_passes(model, resident, most, tokens, rows, should_stop)
            if timed:
                step = _timed_step(model, resident.base.device)
                found |= {"forward": _pace(timed, 1), "both": _pace(timed, 2), "step": step}
    except Exception as error:
        if not is_shortage(error) or "adapter" not in found:
            raise
    return found


def _timed_passes(
    model: Any, resident: Resident, most: Growth, tokens: int, rows: int, should_stop: Callable[[], bool]
) -> list[tuple[int, float, float]]:
    """(tokens, seconds without and with the way back) of a few rows and of more; of those that memory is there for."""
    device = resident.base.device
    adapter = BYTES_PER_ADAPTER_NUMBER * sum(part.numel() for part in model.parameters() if part.requires_grad)
    room = free_on(device) - adapter
    fitting = [
        count
        for count in range(PACED_ROWS[0], rows + 1)
        if HOLES[device.type][False] * most.at(count * tokens, count * tokens**2) <= room
    ]
    timed, counts = [], fitting[:1]
    for count in counts:
        for number in range(TRIES):
            # Rows of new lengths, as a run's nearly always are: that costs, too.
            lengths = [max(2, tokens // 2, tokens - number - TRIES * row) for row in range(count)]
            batch = _batch(model, lengths, min(8, min(lengths) - 1), device)
            passed = (batch["tokens"], *_timed(model, batch, device))
            _let_others_go_first(resident, should_stop)
        timed.append(passed)
        patience = PATIENCE_SECONDS / max(passed[2], 1e-9) * count
        # Fewer than twice as many would tell no slope.
        counts += [more for more in fitting if 2 * count <= more <= patience][-1:] if len(timed) == 1 else []
    return timed


def _timed_step(model: Any, device: torch.device) -> float:
    """Seconds of an optimizer's step: the second one, the first makes its averages."""
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=0.0)
    optimizer.step()
    began = _now(device)
    optimizer.step()
    return _now(device) - began


def _timed(model: Any, batch: dict[str, Any], device: torch.device) -> tuple[float, float]:
    """Seconds of the pass without and with the way back."""
    began = _now(device)
    with ready(model):
        loss = target_loss(model, batch)
        between = _now(device)
        loss.backward()
    return between - began, _now(device) - began


def _pace(timed: list[tuple[int, float, float]], place: int) -> Growth:
    """A line through the passes; the first of all of them is slower than those that come after it."""
    *_, (tokens, *rest) = timed
    seconds = rest[place - 1]
    if len(timed) == 1:
        return Growth(0.0, seconds / tokens)
    fewer, before = timed[0][0], timed[0][place]
    token = min(max((seconds - before) / (tokens - fewer), 0.5 * seconds / tokens), seconds / tokens)
    return Growth(seconds - token * tokens, token)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    # Not the time in which other programs have the processor: that says nothing about the run.
    return time.thread_time()


def _batch(model: Any, lengths: list[int], targets: int, device: torch.device) -> dict[str, Any]:
    config = model.get_base_model().config
    # No two rows begin alike: what they shared would be computed once.
    first, rows = int(config.vocab_size) // 2, []
    for row, length in enumerate(lengths):
        ids = [first + row] * length
        if not is_causal(config):
            # Half of it context, in which every token sees every other.
            ids[length // 2 : length // 2 + 2] = [config.gmask_token_id, config.bos_token_id]
        rows.append(Rendered(ids, [place >= length - targets for place in range(length)], length - targets))
    batch = batch_form(model)(rows)
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _footprint(points: list[tuple[int, int, int]], tokens: int) -> Footprint:
    saved = _grown(tokens, *(saved for saved, _, _ in points))
    return Footprint(saved, _grown(tokens, *(max(there, back) for _, there, back in points)))


def _grown(tokens: int, one: int, two: int, longer: int) -> Growth:
    """From a row of so many tokens, two of them and a row of twice as many."""
    square = max(0.0, (longer - two) / (2 * tokens**2))
    token = (two - one) / tokens - square * tokens
    return Growth(2 * one - two, token, square)


def _linear_numbers(model: torch.nn.Module, head: torch.Tensor) -> int:
    layers = (layer for layer in model.modules() if type(layer) is torch.nn.Linear)
    return sum(layer.weight.numel() for layer in layers if layer.weight is not head)


def _cached_bytes(resident: Resident) -> int:
    try:
        shape = PrefixShape.of(resident.base.model.config, resident.base.source)
    except StudioError:
        # A family without a plain cache; what it keeps of an answer is not known here.
        return 0
    return shape.width * resident.base.dtype.itemsize
