"""Puts the tensors of official ChatGLM-6B files into the model, shard by shard. Knows no tokenizer and no hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from glmstudio.errors import StudioError
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.checkpoint_files import read_json, refuse_misfit, refuse_missing, tensors, weight_files

NOT_LOADED = re.compile(r"rotary_emb\.inv_freq$")
# The head of merged checkpoints that were trained under a wrapper that casts its output to float32.
WRAPPED_HEAD = "lm_head.0.weight"
PREFIX = "transformer.prefix_encoder."


def load_chatglm(
    folder: Path, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> ChatGLMForConditionalGeneration:
    """The model of a folder with official names; only one shard is in memory besides it.

    Raises StudioError `base-quantized`, `config-unfit`, `tensors-missing` and whatever is wrong with a shard.
    """
    if config.get("quantization_bit"):
        raise StudioError("base-quantized", folder=str(folder), bits=config["quantization_bit"])
    files = weight_files(folder)
    try:
        model_config = ChatGLMConfig(**config)
        model_config.dtype = dtype
        with torch.device("meta"):
            model = ChatGLMForConditionalGeneration(model_config)
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
            refuse_misfit(file, stored_name, value, shapes.get(name))
            placed = value.to(device=device, dtype=dtype, copy=True)
            model.load_state_dict({name: placed}, strict=False, assign=True)
            missing.discard(name)
    refuse_missing(folder, missing)
    model.tie_weights()
    return model


def with_prefix(base: ChatGLMForConditionalGeneration, folder: Path) -> ChatGLMForConditionalGeneration:
    """A model on the base's own layers with the P-Tuning v2 prefix of `folder` in front.

    `folder` holds config.json (`pre_seq_len`, `prefix_projection`) and a weight file; its other tensors are left alone.
    Raises StudioError `adapter-missing`, and RuntimeError where the prefix is not for this base.
    """
    wish = read_json(folder / "config.json")
    own = {name: wish.get(name) for name in ("pre_seq_len", "prefix_projection")}
    if not own["pre_seq_len"]:
        raise StudioError("adapter-missing", folder=str(folder))
    config = ChatGLMConfig(**base.config.to_dict() | own)
    config._attn_implementation = base.config._attn_implementation
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config)
    for name in ("word_embeddings", "layers", "final_layernorm"):
        setattr(model.transformer, name, getattr(base.transformer, name))
    model.lm_head = base.lm_head
    stored = {
        name.removeprefix(PREFIX): value.to(device=base.device, dtype=torch.float32, copy=True)
        for file in weight_files(folder)
        for name, value in tensors(file)
        if name.startswith(PREFIX)
    }
    model.transformer.prefix_encoder.load_state_dict(stored, assign=True)
    model.generation_config = base.generation_config
    return model.eval()
