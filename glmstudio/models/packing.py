"""Sequence packing: how samples lie end to end in one sequence, and what each of their tokens sees.

Knows lengths only; attends to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Packing:
    """How many tokens each sample has, and how many leading ones of it every token of the sample sees (ChatGLM-6B's
    context); 0 is plain causal. A causal sample may go on where another one ends, and sees that, too: `continues` has
    the other's number, or None; it may be empty where no sample does."""

    lengths: tuple[int, ...]
    contexts: tuple[int, ...]
    continues: tuple[int | None, ...] = ()
    _kept: dict[tuple[Any, ...], Any] = field(default_factory=dict, compare=False, repr=False)

    def kept(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gave when `key` was first asked for: all layers of a pass need the same."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def bias(self, number: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """What is added to the scores of sample `number`: (n, past + n), 0 or -inf."""
        length, context, past = self.lengths[number], self.contexts[number], self.past(number)
        key = (length, context, past, window, dtype)
        return self.kept(key, lambda: causal_bias(length, context, window, dtype, device, past=past))

    def front(self, number: int) -> int | None:
        """The sample that sample `number` goes on from."""
        return self.continues[number] if self.continues else None

    def past(self, number: int) -> int:
        """How many tokens lie before sample `number` that it sees."""
        front = self.front(number)
        return 0 if front is None else self.lengths[front]


def causal_bias(
    length: int, context: int, window: int | None, dtype: torch.dtype, device: torch.device, *, past: int = 0
) -> torch.Tensor:
    """0 or -inf, (length, past + length): a token sees the past, itself, what lies before it, and the context."""
    visible = torch.ones(length, past + length, dtype=torch.bool, device=device).tril_(past)
    if window is not None:
        visible.triu_(past + 1 - window)
    visible[:, past : past + context] = True
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, -torch.inf)
