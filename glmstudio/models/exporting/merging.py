"""LoRA into the weights of a base, layer by layer: merged in float32, then cast. Knows no file and no prompt."""

from collections.abc import Callable

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from glmstudio.errors import StudioError
from glmstudio.models.transformers_internals import kept_in_float32


def merge_lora(
    model: PeftModel,
    dtype: torch.dtype,
    *,
    on_layer: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PreTrainedModel | None:
    """The base of `model` with its active adapter in the weights, all of them `dtype` afterwards; None when stopped.

    W' = cast(float32(W) + delta): only one layer is in float32 at a time. Weights that transformers keeps in float32
    for their precision stay so. `model` is of no use afterwards. Raises StudioError `merge-method` for an adapter that
    is no LoRA on plain layers.
    """
    if any(config.peft_type.value != "LORA" for config in model.peft_config.values()):
        kinds = sorted({config.peft_type.value for config in model.peft_config.values()})
        raise StudioError("merge-method", kind=", ".join(kinds))
    (name,) = model.active_adapters
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for path, layer in model.get_base_model().named_modules():
        biased = isinstance(layer, LoraLayer) and layer.lora_bias.get(name)
        if biased and getattr(layer.get_base_layer(), "bias", None) is None:
            raise StudioError("merge-lora-bias", layer=path)
    for done, layer in enumerate(layers):
        if should_stop():
            return None
        _merge_layer(layer, name, dtype)
        on_layer(done + 1, len(layers))
    base = model.base_model.unload()
    _cast(base, dtype)
    return base


def _merge_layer(layer: LoraLayer, name: str, dtype: torch.dtype) -> None:
    parameters = list(layer.get_base_layer().parameters(recurse=False))
    for parameter in parameters:
        parameter.data = parameter.data.float()
    layer.merge(adapter_names=[name])
    for parameter in parameters:
        parameter.data = parameter.data.to(dtype)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    kept = kept_in_float32(model)
    for name, value in model.named_parameters():
        if not any(part in name for part in kept):
            value.data = value.data.to(dtype)
    model.config.dtype = dtype
