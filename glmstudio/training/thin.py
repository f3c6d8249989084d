"""LoRA's two thin products and their gradients in one step, in the order that the CPU is fast at. Knows PEFT's layers.

For B (out, r) autograd computes its gradient as gradientᵀ @ hidden, a product of many rows and few columns for which
BLAS takes ten times as long as for hiddenᵀ @ gradient, its transpose. And PEFT scales, adds and rounds whole outputs
where scaling the r columns and adding in place does.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from glmstudio.models.resident import IN_TRAINING
from glmstudio.models.torch_internals import is_view


class ThinProduct(torch.autograd.Function):
    """`apply(result, inputs, a, b, scaling)` → result (…, out) + inputs (…, in) @ aᵀ @ bᵀ * scaling, in place.

    a (r, in) and b (out, r) are float32 and rounded to the number type of `inputs`; the products add up in float32, and
    the result is rounded once. That errs no more than float32 products rounded at the end, and takes a quarter of the
    time, because neither inputs nor result need a float32 copy.
    """

    @staticmethod
    def forward(
        ctx: Any, result: torch.Tensor, inputs: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        hidden = (inputs.flatten(0, -2) @ a.to(inputs.dtype).t()).mul_(scaling)
        result.view(-1, result.shape[-1]).addmm_(hidden, b.to(inputs.dtype).t())
        ctx.mark_dirty(result)
        ctx.save_for_backward(inputs, hidden, a, b)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, hidden, a, b = ctx.saved_tensors
        slope = gradient.flatten(0, -2)
        of_hidden = (slope @ b.to(slope.dtype)).mul_(ctx.scaling)
        of_a = of_hidden.t() @ inputs.flatten(0, -2)
        of_b = (hidden.t() @ slope).t()
        of_inputs = None
        if ctx.needs_input_grad[1]:
            of_inputs = (of_hidden @ a.to(slope.dtype)).view(inputs.shape)
        return gradient, of_inputs, of_a.to(a.dtype), of_b.to(b.dtype), None


def use_thin_products(model: torch.nn.Module) -> None:
    """Lets the layers with the adapter in training compute it that way; their parameters stay the same objects."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and IN_TRAINING in layer.lora_B:
            layer.forward = partial(_forward, layer)


def drop_thin_products(model: torch.nn.Module) -> None:
    """Gives the layers their own way back; does nothing where they have it."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.__dict__.pop("forward", None)


def _forward(layer: Any, inputs: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    result = layer.base_layer(inputs, *rest, **more)
    # What other layers give may be a view of their making, and not for changing in place.
    result = result.clone() if is_view(result) else result
    a, b = layer.lora_A[IN_TRAINING].weight, layer.lora_B[IN_TRAINING].weight
    return ThinProduct.apply(result, layer.lora_dropout[IN_TRAINING](inputs), a, b, layer.scaling[IN_TRAINING])
