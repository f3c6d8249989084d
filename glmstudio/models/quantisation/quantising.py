"""Full-precision layers become 8-bit and 4-bit ones while a model loads. Knows no files and no family.

8 bits are bitsandbytes' LLM.int8 on CUDA and elsewhere the form of the official int8 folders: it comes closer to the
full numbers there, and no row of a batch changes another. 4 bits are bitsandbytes' NF4 with doubly quantised scales, as
in QLoRA (Dettmers et al., 2023, arXiv 2305.14314; LLM.int8: 2022, arXiv 2208.07339). Embeddings,
norms and head stay as they are.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from glmstudio.errors import StudioError, first_line
from glmstudio.models.quantisation.quantised import PackedLinear, plain_layers
from glmstudio.settings import QUANTIZATIONS

LIBRARY, REQUIREMENT = "bitsandbytes", "bitsandbytes==0.50.2"
DEVICES = ("cpu", "cuda")
# LLM.int8 computes columns of the input that hold larger values in the full number type.
OUTLIER = 6.0

Shrink = Callable[[Any], None]


def leave(model: Any) -> None:
    """The `Shrink` that changes nothing."""


def shrink_to(quantization: str, device: torch.device, dtype: torch.dtype) -> Shrink:
    """A function that quantises those layers of a model, one at a time, whose weights are no longer on "meta".

    Called after every shard it leaves one shard in full precision; a layer comes to rest on `device`, where it computes
    in `dtype`. Raises StudioError `quantization-unknown`, `quantization-missing`, `quantization-device`.
    """
    if quantization not in QUANTIZATIONS:
        raise StudioError("quantization-unknown", quantization=quantization, choices=", ".join(QUANTIZATIONS))
    if quantization == "none":
        return leave
    if quantization == "8bit" and device.type != "cuda":
        return lambda model: _replace(model, int8_rows)
    library = _library(quantization, device)

    def shrink(model: Any) -> None:
        try:
            if quantization == "8bit":
                _replace(model, lambda layer: llm_int8(library, layer, device))
            else:
                from glmstudio.models.quantisation.nf4 import Nf4Linear

                _replace(model, lambda layer: Nf4Linear(layer, device, dtype))
        except (RuntimeError, AttributeError) as error:  # Its compiled part does not serve this machine.
            reason = first_line(error)
            raise StudioError(
                "quantization-device", quantization=quantization, device=str(device), reason=reason
            ) from error
        # PEFT takes the library's layers for what they are by these names.
        setattr(model, f"is_loaded_in_{quantization}", True)

    return shrink


def _library(quantization: str, device: torch.device) -> ModuleType:
    if device.type not in DEVICES:
        reason = f"{LIBRARY}: {', '.join(DEVICES)}"
        raise StudioError("quantization-device", quantization=quantization, device=str(device), reason=reason)
    try:
        return importlib.import_module(LIBRARY)
    except ImportError as error:
        raise StudioError("quantization-missing", quantization=quantization, package=REQUIREMENT) from error


def _replace(model: Any, quantise: Callable[[nn.Linear], nn.Linear]) -> None:
    # Paths and not layers: each one's full weights go as soon as it is replaced.
    for path in plain_layers(model):
        layer = model.get_submodule(path)
        if not any(weight.is_meta for weight in layer.parameters()):
            model.set_submodule(path, quantise(layer).train(layer.training))


def int8_rows(layer: nn.Linear) -> PackedLinear:
    """The layer in the form of the official int8 folders: scale = max |w| / 127 by row, q = round(w / scale)."""
    packed = PackedLinear(layer.in_features, layer.out_features, 8, bias=layer.bias is not None)
    weight = layer.weight.data.float()
    # A row of zeros has any scale but 0.
    scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    packed.weight = nn.Parameter((weight / scale[:, None]).round_().to(torch.int8), requires_grad=False)
    packed.weight_scale, packed.bias = scale, layer.bias
    return packed


def llm_int8(library: ModuleType, layer: nn.Linear, device: torch.device) -> nn.Linear:
    """bitsandbytes' 8-bit layer; the weights are quantised on their way to `device`."""
    own = library.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    own.weight = library.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False).to(device)
    if layer.bias is not None:
        own.bias = nn.Parameter(layer.bias.data.to(device), requires_grad=False)
    return own


def prefer_answers(model: nn.Module, wish: bool) -> None:
    """Whether 4-bit weights on the CPU may stand in the order that answers fastest, in which they cannot train."""
    for layer in model.modules():
        if hasattr(layer, "prefer_answers"):
            layer.prefer_answers(wish)
