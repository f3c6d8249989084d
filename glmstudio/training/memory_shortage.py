"""Running out of memory: how it is told from other errors, and the token budget that is halved for it, once a run.

Knows numbers of tokens; knows no model and no Trainer.
"""

import gc
from collections.abc import Callable, Sequence

import torch
from accelerate.utils.memory import should_reduce_batch_size

from glmstudio.models.process_memory import give_back
from glmstudio.training.batches import by_length, computed_tokens


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out, that of a graphics card or of the machine."""
    # The CPU's allocator has no type for it, only words.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)


def free_memory() -> None:
    """Gives back what nobody holds."""
    # Trainer, optimizer and callbacks refer to each other in circles: their memory comes back only with a collection.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


class TokenBudget:
    """The most tokens of a micro-batch; 0: no limit but that of a batch.

    `halved_from` tells that it was halved already, and from what. Every process of a run halves it to the same number,
    because that depends on all rows of the run and on nothing that a process sees alone.
    """

    def __init__(
        self, tokens: int, halved_from: int, *, largest: int, longest: int, on_halved: Callable[[int, int], None]
    ) -> None:
        self.tokens = tokens
        self.halved_from = halved_from
        self._largest, self._longest = largest, longest
        self._on_halved = on_halved

    def halve(self) -> bool:
        """Halves it, to no less than the longest row, and tells (before, after); False where it was halved before or
        where micro-batches are single rows already."""
        before = min(self.tokens or self._largest, self._largest)
        after = max(before // 2, self._longest)
        if self.halved_from or after >= before:
            return False
        self.tokens, self.halved_from = after, before
        self._on_halved(before, after)
        return True


def largest_batch(lengths: Sequence[int], rows: int, *, padded: bool) -> int:
    """The tokens that the longest rows cost, so many of them at once."""
    return computed_tokens(by_length(lengths)[:rows], lengths, padded=padded)
