"""The files of a merged model: names and config of its form, tokenizer, generation settings. Knows no adapter.

`native` is what transformers (for ChatGLM-6B: this package) saves; `official` is ChatGLM-6B as its authors publish it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from glmstudio.models.base import Base
from glmstudio.models.chatglm.positions import ROTARY_BASE
from glmstudio.models.checkpoint_files import read_json, tensors, weight_files
from glmstudio.models.families.family import FAMILY_KEY
from glmstudio.models.prompts.dialogue import end_ids

TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# What a base's own config may say about being quantised or prefixed does not hold for merged weights.
NOT_KEPT = ("quantization_bit", "quantization_embeddings", "pre_seq_len", "prefix_projection", "dtype")


def stored_dtype(folder: Path) -> torch.dtype:
    """The number type of a folder's weights: that of the first tensor with fractions. Reads one shard's head."""
    return next(value.dtype for file in weight_files(folder) for _, value in tensors(file) if value.is_floating_point())


def named_tensors(model: PreTrainedModel, form: str) -> dict[str, torch.Tensor]:
    """The model's tensors under the names of `form`; nothing is copied.

    Native: without tied heads, and mixtures' experts one by one as their authors store them. Official: with the head
    beside the embedding that it is tied to, and with the table of rotary frequencies of every layer.
    """
    state = dict(model.state_dict())
    if form == "official":
        return state | _rotary_tables(model)
    for name, source in model.all_tied_weights_keys.items():
        if name in state and source in state and state[name].data_ptr() == state[source].data_ptr():
            del state[name]
    return revert_weight_conversion(model, state)


def _rotary_tables(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """`inv_freq` of each layer in half precision: 1 / base ** (2i / d) over the half of a head that one row turns."""
    config = model.config
    width = config.hidden_size // config.num_attention_heads // 2
    table = 1.0 / ROTARY_BASE ** (torch.arange(0, width, 2).float() / width)
    layers = range(config.num_layers)
    return {f"transformer.layers.{index}.attention.rotary_emb.inv_freq": table.half() for index in layers}


def write_rest(folder: Path, base: Base, source: Path, form: str, dtype: torch.dtype) -> None:
    """config.json, generation_config.json and the tokenizer's files beside the weights.

    `source` is the folder of the base. Its tokenizer is copied file by file where the form stays, so that it stays the
    same to the last byte.
    """
    if form == "official":
        values = {key: value for key, value in read_json(source / "config.json").items() if key not in NOT_KEPT}
        values["torch_dtype"] = str(dtype).removeprefix("torch.")
    else:
        values = _native_config(base.model, dtype)
        if base.family.converted:
            values[FAMILY_KEY] = base.family.name
    (folder / "config.json").write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    _with_end(base).save_pretrained(folder)
    if base.tokenizer is None:
        return
    if base.family.converted:
        base.tokenizer.save_pretrained(folder)
        return
    for name in {*TOKENIZER_FILES, *base.family.tokenizer_files}:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _native_config(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any]:
    config = model.config
    config.dtype, config.architectures = dtype, [type(model).__name__]
    values = json.loads(config.to_json_string())
    # Layers that predict further tokens are left out when transformers loads a mixture; no file here has them.
    if values.get("num_nextn_predict_layers"):
        values["num_nextn_predict_layers"] = 0
    return values


def _with_end(base: Base) -> GenerationConfig:
    """The base's settings, with every token among its ends that ends an answer here."""
    config = GenerationConfig(**base.model.generation_config.to_dict())
    ends = end_ids(base.tokenizer, base.family, config.eos_token_id)
    config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    return config
