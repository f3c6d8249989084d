"""Attention inside samples that lie end to end, on a graphics card: all samples in one or two calls of torch's flash
kernel. Knows sections of one sequence and tensors; no model, no batch.

Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023, arXiv 2307.08691.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch

from glmstudio.models.packing import Packing
from glmstudio.models.torch_internals import flash_backward, flash_forward

HALF = (torch.bfloat16, torch.float16)
# What the kernel takes: cards from Ampere on, and heads of these sizes.
CAPABILITY, LARGEST_HEAD, HEAD_STEP = (8, 0), 256, 8
EVERYTHING, ITSELF_AND_BEFORE = -1, 0


@dataclass(frozen=True)
class Sections:
    """`lengths` tokens each, end to end: where they begin and end (n + 1,) int32, and the longest."""

    ends: torch.Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Sections":
        return cls(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device), max(lengths))


def can_flash(query: torch.Tensor) -> bool:
    """Whether the kernel takes queries (…, d) of this kind on the card where they lie."""
    size = query.shape[-1]
    fits = query.dtype in HALF and size <= LARGEST_HEAD and size % HEAD_STEP == 0
    return query.is_cuda and fits and _has_kernel(query.device)


@cache
def _has_kernel(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and (
        torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def attend_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, scaling: float, window: int | None
) -> torch.Tensor:
    """`query` (1, heads, total, d), `key` and `value` (1, key heads, total, d) → (1, total, heads, d).

    With contexts in two calls: the context's tokens see each other, then the others see what lies before them.
    """
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    device, lengths, contexts = query.device, packing.lengths, packing.contexts

    def sections(lengths: Sequence[int]) -> Sections:
        return packing.kept(("sections", *lengths), lambda: Sections.of(lengths, device))

    if not any(contexts):
        past = [packing.past(number) for number in range(len(lengths))]
        if any(past):
            seen = packing.kept(("seen",), lambda: _seen(packing).to(device))
            k, v = k[seen], v[seen]
        sizes = [before + length for before, length in zip(past, lengths, strict=True)]
        before = EVERYTHING if window is None else window - 1
        return Flash.apply(q, k, v, sections(lengths), sections(sizes), scaling, (before, ITSELF_AND_BEFORE))[None]
    of_context, of_rest = packing.kept(("parts",), lambda: [part.to(device) for part in _parts(packing)])
    inner = sections(contexts)
    # A gather whose gradient needs no sorting: no token is there twice.
    of_contexts = (states.index_select(0, of_context) for states in (q, k, v))
    first = Flash.apply(*of_contexts, inner, inner, scaling, (EVERYTHING, EVERYTHING))
    attended = torch.empty_like(q).index_copy(0, of_context, first)
    # The kernel takes samples without a query, but no call without any.
    if len(of_rest):
        rest = sections([n - c for c, n in zip(contexts, lengths, strict=True)])
        queries = q.index_select(0, of_rest)
        second = Flash.apply(queries, k, v, rest, sections(lengths), scaling, (EVERYTHING, ITSELF_AND_BEFORE))
        attended = attended.index_copy(0, of_rest, second)
    return attended[None]


class Flash(torch.autograd.Function):
    """`apply(query, key, value, queries, keys, scaling, (before, after))`: query (total queries, heads, d), key and
    value (total keys, key heads, d) → (total queries, heads, d).

    The last query of a section is at the place of its last key; a query sees so many keys `before` and `after` it, -1:
    all. Gradients are added up in the same order every time, which torch leaves to chance unless it is told otherwise.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        queries: Sections,
        keys: Sections,
        scaling: float,
        window: tuple[int, int],
    ) -> torch.Tensor:
        ctx.options = _options(scaling, window)
        ctx.places = (queries.ends, keys.ends, queries.longest, keys.longest, 0.0, _is_causal(window))
        output, sums, dice, unused, _ = flash_forward(query, key, value, *ctx.places, False, **ctx.options)
        ctx.save_for_backward(query, key, value, output, sums, dice, unused)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, sums, dice, unused = ctx.saved_tensors
        with _in_order():
            slopes = flash_backward(
                gradient.contiguous(), query, key, value, output, sums, *ctx.places, dice, unused, **ctx.options
            )
        return (*slopes, None, None, None, None)


def _is_causal(window: tuple[int, int]) -> bool:
    return window == (EVERYTHING, ITSELF_AND_BEFORE)


def _options(scaling: float, window: tuple[int, int]) -> dict[str, float]:
    return {"scale": scaling, "window_size_left": window[0], "window_size_right": window[1]}


@contextmanager
def _in_order() -> Iterator[None]:
    """Within, kernels that could add up in any order keep to one. For this kernel alone: others lose by it."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _seen(packing: Packing) -> torch.Tensor:
    """Where the keys lie that each sample sees, one sample's after the other's."""
    sections = torch.arange(sum(packing.lengths)).split(packing.lengths)
    fronts = [packing.front(number) for number in range(len(sections))]
    seen = [part for front, own in zip(fronts, sections, strict=True)
            for part in ([own] if front is None else [sections[front], own])]  # fmt: skip
    return torch.cat(seen)


def _parts(packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of the contexts lie, and all others."""
    pairs = zip(packing.contexts, packing.lengths, strict=True)
    in_context = torch.tensor([part for c, n in pairs for part in ([True] * c + [False] * (n - c))])
    return in_context.nonzero()[:, 0], in_context.logical_not().nonzero()[:, 0]
