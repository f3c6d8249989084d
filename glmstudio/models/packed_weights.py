"""Copies of frozen weights as oneDNN reads them fastest, for answers on CPUs with instructions for them.

Knows weights and memory: no adapter, no row and no pass.
"""

from collections.abc import Mapping

import torch

from glmstudio.models.devices import free_memory
from glmstudio.models.processor import multiplies_well
from glmstudio.models.torch_internals import onednn_weight

# Of the free memory, what the copies may take.
SHARE_OF_FREE = 0.25


class PackedWeights:
    """The copies, made when they are first asked for and kept as long as this is; of `copies` by weight, only those."""

    def __init__(self, copies: Mapping[torch.Tensor, torch.Tensor] | None = None) -> None:
        self._packed = dict(copies or {})
        self._left: float | None = None if copies is None else 0.0

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """What oneDNN takes for `weight` (out, in): its copy, or itself where that gains nothing or no memory is left.

        A product of 1 to 32 rows, whose time is that of reading the weights, is 1.3 to 1.7 times as fast with a copy in
        bfloat16. In float32 one of 4 to 16 rows is 1.4 to 2 times as fast on AMD's processors; where torch multiplies
        well, an answer's step gained 2 % with 32 rows and nothing with 2.
        """
        gains = weight.dtype == torch.bfloat16 or not multiplies_well()
        if gains and weight not in self._packed and self._spends(weight.nbytes):
            self._packed[weight] = onednn_weight(weight.detach())
        return self._packed.get(weight, weight)

    def _spends(self, needed: int) -> bool:
        if self._left is None:
            self._left = free_memory(torch.device("cpu")) * SHARE_OF_FREE
        fits = needed <= self._left
        self._left -= needed if fits else 0
        return fits
