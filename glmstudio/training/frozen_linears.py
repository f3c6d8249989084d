"""The base's frozen linear layers through oneDNN while a run trains, on CPUs where that was measured to be faster.

Exact: bfloat16 gives the bits of torch's own product, float32 the same sums in another order, and packed or not the
bits are equal. Answers compute as without a run, and share the copies. Knows no adapter, no quantised layer and no
training loop.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from glmstudio.models.devices import free_memory
from glmstudio.models.processor import multiplies_well, onednn_gains
from glmstudio.models.resident import Resident
from glmstudio.models.torch_internals import onednn_product, onednn_weight, reshaped

# With fewer weights a call costs more than it saves (256 × 256 is even from 128 rows on).
FEWEST_WEIGHTS = 2**16
# Of the free memory, what packed copies may take. One layer takes twice its weights: W and its transpose.
SHARE_OF_FREE = 0.25


class _Product(torch.autograd.Function):
    """inputs (…, in) → (…, out) with a gradient for the inputs only."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, layer: "FrozenLinear") -> torch.Tensor:
        ctx.layer = layer
        return layer.product(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.layer.gradient(gradient), None


class FrozenLinear(nn.Linear):
    """What a frozen `nn.Linear` becomes for the time of a run: same parameters, same names, same results.

    `ahead` and `back` are W (out, in) and its transpose as oneDNN takes them, packed or as they lie.
    """

    resident: Resident
    ahead: torch.Tensor
    back: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.resident.answering:
            return F.linear(input, self.weight, self.bias)
        return _Product.apply(input, self)

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs @ Wᵀ + bias, without a graph."""
        return _onednn(inputs, self.ahead, self.bias)

    def gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """The inputs' gradient: gradient (…, out) @ W (…, in)."""
        return _onednn(gradient, self.back, None)


def use_frozen_linears(resident: Resident, share: float = SHARE_OF_FREE) -> int:
    """Makes the base's frozen layers `FrozenLinear`, its head too, and gives the bytes of the packed copies.

    Layers are packed in their order as long as that `share` of the free memory lasts; the others go through oneDNN
    unpacked, which keeps most of the gain in float32. Nothing is done on other devices, where oneDNN does not gain,
    nor where torch multiplies well by itself: copies would cost memory and gain next to nothing.
    """
    base = resident.base
    if base.device.type != "cpu" or not onednn_gains(base.dtype) or multiplies_well():
        return 0
    allowance, packed, ahead = free_memory(base.device) * share, 0, {}
    for layer in base.model.modules():
        if not _fits(layer, base.dtype):
            continue
        weight, needs = layer.weight.data, 2 * layer.weight.nbytes
        layer.ahead, layer.back = weight, weight.t()
        if packed + needs <= allowance:
            packed += needs
            layer.ahead, layer.back = onednn_weight(layer.ahead), onednn_weight(layer.back)
            ahead[layer.weight] = layer.ahead
        layer.resident = resident
        layer.__class__ = FrozenLinear
    resident.share_packed(ahead)
    return packed


def drop_frozen_linears(resident: Resident) -> None:
    """Makes the layers plain ones again and lets go of their copies; does nothing where there are none."""
    for layer in resident.base.model.modules():
        if isinstance(layer, FrozenLinear):
            layer.__class__ = nn.Linear
            del layer.ahead, layer.back, layer.resident


def products(head: nn.Linear) -> tuple[Any, Any]:
    """(hidden → logits, the logits' gradient → the hidden states') of a frozen head, whichever way it is computed."""
    if isinstance(head, FrozenLinear):
        return head.product, head.gradient
    return lambda hidden: F.linear(hidden, head.weight, head.bias), lambda slope: slope @ head.weight


def _fits(layer: nn.Module, dtype: torch.dtype) -> bool:
    if type(layer) is not nn.Linear:
        return False
    parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    frozen = all(part.dtype == dtype and not part.requires_grad for part in parts)
    return frozen and layer.weight.numel() >= FEWEST_WEIGHTS


def _onednn(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    result = onednn_product(rows.flatten(0, -2), weight, bias)
    # No view: LoRA adds to the result in place, which autograd forbids for views made inside of a function.
    return reshaped(result, (*rows.shape[:-1], result.shape[-1]))
