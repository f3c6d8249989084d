"""Which layers of a model an adapter can sit on, by the last part of their names. Knows layers, no wish."""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# PEFT refuses these there: what reads their weights goes around the layer.
_STATE_SPACE = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_AROUND_THE_LAYER = ("out_proj", "conv1d")


def linear_names(model: PreTrainedModel) -> set[str]:
    """The names that only linear layers have; the head is none of them: its loss is computed outside of PEFT."""
    head = model.get_output_embeddings()
    names: dict[str, bool] = {}
    inside_adapter: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if inside_adapter and path.startswith(inside_adapter):
            continue
        plain = module
        if isinstance(module, BaseTunerLayer):
            inside_adapter, plain = (f"{path}.",), module.get_base_layer()
        name = path.rpartition(".")[2]
        names[name] = names.get(name, True) and plain is not head and _is_linear(plain)
    # PEFT would put an adapter of these names on the fused experts too, and cannot answer with it beside others.
    if any(path.endswith(".experts.gate_up_proj") for path, _ in model.named_parameters()):
        names |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), False)
    if model.config.model_type in _STATE_SPACE:
        names |= dict.fromkeys(_AROUND_THE_LAYER, False)
    return {name for name, linear in names.items() if linear}


def stored_transposed(model: PreTrainedModel, names: list[str]) -> bool:
    """Whether the layers of these names keep their weights as (in, out): GPT-2 and its kin."""
    layers = (module for path, module in model.named_modules() if path.rpartition(".")[2] in names)
    return any(isinstance(getattr(layer, "base_layer", layer), Conv1D) for layer in layers)


def _is_linear(layer: nn.Module) -> bool:
    if isinstance(layer, Conv1D):
        return True
    if not isinstance(layer, nn.Linear):
        return False
    # A family's own kind may be a router, which gives several things, or one product for each group of rows.
    return not type(layer).__module__.startswith("transformers.models.") or _gives_rows(layer)


def _gives_rows(layer: nn.Linear) -> bool:
    weights = {name: value.to("meta") for name, value in layer.named_parameters()}
    row = torch.empty(1, layer.in_features, device="meta", dtype=layer.weight.dtype)
    try:
        made = torch.func.functional_call(layer, weights, (row,))
    except Exception:  # It wants something else than rows.
        return False
    return isinstance(made, torch.Tensor) and made.shape == (1, layer.out_features)
