"""LoRA's second matrix with a gradient that the CPU is fast at. Knows PEFT's layers; changes no value, only the order.

For B (out, r) autograd computes its gradient as gradientᵀ @ hidden, a product of many rows and few columns for which
BLAS takes ten times as long as for hiddenᵀ @ gradient, its transpose: a tenth of a whole step of the embedded base.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F

from glmstudio.models.resident import IN_TRAINING


class ThinProduct(torch.autograd.Function):
    """`apply(hidden, weight)`: hidden (…, r), weight (out, r) → (…, out), both with gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(hidden, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, weight = ctx.saved_tensors
        of_weight = hidden.flatten(0, -2).t() @ gradient.flatten(0, -2)
        return F.linear(gradient, weight.t().contiguous()), of_weight.t()


class ThinLinear(torch.nn.Linear):
    """A linear layer without bias whose few input columns are known."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return ThinProduct.apply(input, self.weight)


def use_thin_products(model: torch.nn.Module) -> None:
    """Lets the adapter in training compute its B that way; its parameters stay the same objects."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and IN_TRAINING in layer.lora_B:
            plain = layer.lora_B[IN_TRAINING]
            thin = ThinLinear(plain.in_features, plain.out_features, bias=False, device="meta")
            thin.weight = plain.weight
            layer.lora_B[IN_TRAINING] = thin
