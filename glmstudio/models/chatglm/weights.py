"""Puts the tensors of official ChatGLM-6B files into the model, shard by shard. Knows no tokenizer and no hub."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from glmstudio.errors import StudioError
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.checkpoint_files import refuse_misfit, refuse_missing, tensors, weight_files
from glmstudio.models.quantisation.quantised import quantisation_of, use_packed_layers
from glmstudio.models.quantisation.quantising import Shrink, leave
from glmstudio.models.stored_tensors import StoredTensors

# The frequencies are computed; a prefix that was saved with its whole base is an adapter, and loads as one.
NOT_LOADED = re.compile(r"rotary_emb\.inv_freq$|^transformer\.prefix_encoder\.")
# The head of merged checkpoints that were trained under a wrapper that casts its output to float32.
WRAPPED_HEAD = "lm_head.0.weight"


def load_chatglm(
    folder: Path, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype, shrink: Shrink = leave
) -> ChatGLMForConditionalGeneration:
    """The model of a folder with official names, packed weights as they are; only one shard is in memory besides it.

    `shrink` is called after every shard. Raises StudioError `base-quantized`, `config-unfit`, `tensors-missing` and
    whatever is wrong with a shard.
    """
    quantization = quantisation_of(config, str(folder))
    files = weight_files(folder)
    try:
        model_config = ChatGLMConfig(**config)
        model_config.dtype = dtype
        with torch.device("meta"):
            model = ChatGLMForConditionalGeneration(model_config)
        kinds = use_packed_layers(model, quantization)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise StudioError("config-unfit", file=str(folder / "config.json"), reason=str(error)) from error
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing = set(shapes)
    if model_config.tie_word_embeddings:
        missing.discard("lm_head.weight")
    for file in files:
        for stored_name, value in tensors(file):
            if NOT_LOADED.search(stored_name):
                continue
            name = "lm_head.weight" if stored_name == WRAPPED_HEAD else stored_name
            refuse_misfit(file, stored_name, value, shapes.get(name), packed=kinds.get(name) == torch.int8)
            placed = value.to(device=device, dtype=kinds.get(name, dtype), copy=True)
            model.load_state_dict({name: placed}, strict=False, assign=True)
            missing.discard(name)
        shrink(model)
    refuse_missing(folder, missing)
    model.tie_weights()
    return model


def chatglm_stored_tensors(folder: Path, config: Mapping[str, Any]) -> StoredTensors:
    """The tensors of the model that the config describes. Raises whatever the config's class raises."""
    with torch.device("meta"):
        model: Any = ChatGLMForConditionalGeneration(ChatGLMConfig(**config))
    kinds = use_packed_layers(model, quantisation_of(config, str(folder)))
    tensors = dict(model.state_dict())

    def names_of(file: Path, name: str, value: torch.Tensor) -> Collection[str]:
        if NOT_LOADED.search(name):
            return ()
        own = "lm_head.weight" if name == WRAPPED_HEAD else name
        shape = tuple(tensors[own].shape) if own in tensors else None
        refuse_misfit(file, name, value, shape, packed=kinds.get(own) == torch.int8)
        return (own,)

    return StoredTensors(tensors, names_of)
