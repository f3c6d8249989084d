"""How fast the machine reads memory, and what one more token of an answer must read. Knows models, no way to answer."""

from typing import Any

import torch

from glmstudio.benchmarks.clock import Clock
from glmstudio.models.quantisation.quantised import weight_bytes

# More than a processor's own caches hold.
READ_BYTES = 2**28
REPEATS = 5


def read_rate(device: torch.device) -> float:
    """Bytes a second of adding up a large tensor, the best of a few times."""
    numbers = torch.ones(READ_BYTES // 4, device=device)
    seconds = []
    for _ in range(REPEATS):
        clock = Clock(device)
        numbers.sum()
        seconds.append(clock.seconds())
    return numbers.nbytes / min(seconds)


def step_bytes(model: Any) -> int:
    """Bytes of the weights that a pass for one token a row reads: all but the table of the input's embeddings."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return weight_bytes(model) - (0 if table is head else table.nbytes)
