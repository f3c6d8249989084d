"""Weights of 4 and 8 bits as the official int4 and int8 folders store them, and what a model's weights take in memory.

A row of a matrix has one scale and no zero point: weight = q * scale. Knows no files and no library's own layers.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from glmstudio.errors import StudioError
from glmstudio.models.torch_internals import int8_product

BITS = {4: "4bit", 8: "8bit"}
# Up to so many rows torch's product with int8 is the faster one on the CPU: an answer's steps, not its prompt.
FEW_ROWS = 16
# It reads beyond rows of other lengths.
STEP_COLUMNS = 32


def quantisation_of(config: Mapping[str, Any], folder: str) -> str:
    """What a folder's `config.json` says of its weights: "none", or "4bit" and "8bit" for the official int4 and int8.

    Raises StudioError `base-quantized` for every form that is not read, quantised embeddings among them.
    """
    bits = config.get("quantization_bit") or 0
    form = ""
    if config.get("quantization_config"):
        form = str(dict(config["quantization_config"]).get("quant_method", "quantization_config"))
    elif bits and config.get("quantization_embeddings"):
        form = "quantization_embeddings"
    elif bits and bits not in BITS:
        form = f"{bits} bit"
    if form:
        raise StudioError("base-quantized", folder=folder, form=form)
    return BITS.get(bits, "none")


def unpacked(packed: torch.Tensor) -> torch.Tensor:
    """Signed 4-bit values (rows, 2 * n) int8 of bytes (rows, n) int8: the high half of a byte comes first."""
    values = torch.empty(len(packed), 2 * packed.shape[1], dtype=torch.int8, device=packed.device)
    torch.bitwise_right_shift(packed, 4, out=values[:, ::2])
    torch.bitwise_right_shift(packed << 4, 4, out=values[:, 1::2])
    return values


def dequantised(weight: torch.Tensor, scale: torch.Tensor, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (rows, `columns`) of `weight` int8, packed where it has half as many columns, times `scale`."""
    values = weight if weight.shape[1] == columns else unpacked(weight)
    return values.to(dtype).mul_(scale.to(dtype)[:, None])


class _Product(torch.autograd.Function):
    """inputs @ weightᵀ + bias with a gradient for the inputs only; the full matrix is made anew and never kept."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.columns = inputs.shape[-1]
        return F.linear(inputs, dequantised(weight, scale, ctx.columns, inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return gradient @ dequantised(*ctx.saved_tensors, ctx.columns, gradient.dtype), None, None, None


class PackedLinear(nn.Linear):
    """A frozen linear layer under the official names: `weight` int8 (out, in) or, for 4 bits, (out, in / 2), and
    `weight_scale` float (out,). Made without numbers, on the device "meta"; adapters sit on it as on a plain one."""

    def __init__(self, in_features: int, out_features: int, bits: int, *, bias: bool) -> None:
        super().__init__(in_features, out_features, bias=bias, device="meta")
        packed = torch.empty(out_features, in_features * bits // 8, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("weight_scale", torch.empty(out_features, dtype=torch.float16, device="meta"))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._is_step(input):
            values = self.weight if self.weight.shape[1] == self.in_features else unpacked(self.weight)
            rows = input.reshape(-1, self.in_features)
            product = int8_product(rows, values, self.weight_scale.to(input.dtype))
            product = product.view(*input.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias
        return _Product.apply(input, self.weight, self.weight_scale, self.bias)

    def _is_step(self, input: torch.Tensor) -> bool:
        """Whether torch's product with int8 is there for `input`, and the faster one."""
        learns = torch.is_grad_enabled() and input.requires_grad
        fits = self.in_features % STEP_COLUMNS == 0 and input.numel() <= FEW_ROWS * self.in_features
        return fits and not learns and input.device.type == "cpu" and input.dtype == torch.bfloat16


def use_packed_layers(model: nn.Module, quantisation: str) -> dict[str, torch.dtype]:
    """Puts a `PackedLinear` in the place of every linear layer of a model on "meta", but not of its head.

    Gives the number types of their tensors by name; nothing is done for "none".
    """
    kinds: dict[str, torch.dtype] = {}
    for bits in (bits for bits, name in BITS.items() if name == quantisation):
        for path in plain_layers(model):
            linear = model.get_submodule(path)
            layer = PackedLinear(linear.in_features, linear.out_features, bits, bias=linear.bias is not None)
            model.set_submodule(path, layer)
            kinds |= {f"{path}.weight": layer.weight.dtype, f"{path}.weight_scale": layer.weight_scale.dtype}
    return kinds


def plain_layers(model: Any) -> list[str]:
    """Paths of the linear layers that may be quantised: all that are of full precision, without the head."""
    head = model.get_output_embeddings()
    return [path for path, layer in model.named_modules() if type(layer) is nn.Linear and layer is not head]


def weight_bytes(model: nn.Module) -> int:
    """Bytes that the base's weights take."""
    return sum(weight_places(model).values())


def weight_places(model: nn.Module) -> dict[int, int]:
    """Address and bytes of the base's parameters and buffers, with the scales of quantised ones, without adapters."""
    held: dict[int, int] = {}
    for path, module in model.named_modules():
        if ".lora_" in path:
            continue
        parts = [*module.parameters(recurse=False), *module.buffers(recurse=False), *_scales(module)]
        held |= {part.data_ptr(): part.nbytes for part in parts}
    return held


def _scales(module: nn.Module) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside its 4-bit and 8-bit weights, in no parameter and no buffer."""
    weight = getattr(module, "weight", None)
    state = getattr(weight, "quant_state", None)
    nested = getattr(state, "state2", None)
    beside = ((state, "absmax"), (nested, "absmax"), (weight, "SCB"), (getattr(module, "state", None), "SCB"))
    found = [getattr(holder, name, None) for holder, name in beside]
    return [part for part in found if isinstance(part, torch.Tensor)]


def parameter_count(model: nn.Module) -> int:
    """Parameters of the base, packed ones counted as what they stand for, without adapters; tied ones once."""
    counts: dict[int, int] = {}
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if ".lora_" not in f".{path}.{name}":
                packed = isinstance(module, nn.Linear) and not weight.is_floating_point()
                counts[id(weight)] = module.in_features * module.out_features if packed else weight.numel()
    return sum(counts.values())
