"""P-Tuning v2 prefixes in folders of the official form: config.json and weights named transformer.prefix_encoder.*.

Knows sizes and files; runs no model.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from glmstudio.errors import StudioError
from glmstudio.models.adapters.prefix import PrefixEncoder, PrefixModel, PrefixShape
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.checkpoint_files import read_json, tensors, weight_files

if TYPE_CHECKING:
    from glmstudio.models.base import Base

NAMES = "transformer.prefix_encoder."
CONFIG = "config.json"
# The original code reads this name and no other.
WEIGHTS = "pytorch_model.bin"


def load_prefix(base: "Base", folder: str | Path) -> PrefixModel:
    """The base behind the prefix of `folder`, in evaluation mode; its float32 parameters ask for gradients.

    Raises StudioError as `read_prefix` does, and RuntimeError where the prefix is not for this base.
    """
    return PrefixModel(base, read_prefix(base, Path(folder))).eval()


def read_prefix(base: "Base", folder: Path) -> PrefixEncoder:
    """The prefix of a folder on the base's device, float32, in evaluation mode; other tensors there are left alone.

    Raises StudioError `adapter-missing` for a folder without prefix, `ptuning-family` and those of unreadable files;
    RuntimeError where sizes differ. Draws no random numbers.
    """
    wish = read_json(folder / CONFIG)
    if not wish.get("pre_seq_len"):
        raise StudioError("adapter-missing", folder=str(folder))
    shape = PrefixShape.of(base.model.config, base.source)
    with torch.device("meta"):
        encoder = PrefixEncoder(shape, wish["pre_seq_len"], bool(wish.get("prefix_projection")))
    stored = {
        name.removeprefix(NAMES): value.to(device=base.device, dtype=torch.float32, copy=True)
        for file in weight_files(folder)
        for name, value in tensors(file)
        if name.startswith(NAMES)
    }
    encoder.load_state_dict(stored, assign=True)
    return encoder.eval()


def refill(model: PrefixModel, folder: Path) -> None:
    """Gives the parameters of `model` the values of a folder; raises as `read_prefix` does."""
    model.prefix_encoder.load_state_dict(read_prefix(model.base, folder).state_dict())


def write_prefix(model: PrefixModel, folder: Path) -> None:
    """Writes the prefix of `model` into `folder`, as the original code and `read_prefix` read it."""
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    torch.save(state, folder / WEIGHTS)
    text = json.dumps(_config(model), ensure_ascii=False, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _config(model: PrefixModel) -> dict[str, Any]:
    """What the original PrefixEncoder asks of a config, under its names, and which base it was trained on."""
    base, encoder, config = model.base, model.prefix_encoder, model.config
    original = isinstance(config, ChatGLMConfig) or base.family.converted
    values: dict[str, Any] = {
        "_name_or_path": base.source,
        "model_type": ChatGLMConfig.model_type if original else config.model_type,
        "num_layers": encoder.shape.layers,
        "hidden_size": encoder.shape.hidden,
        "num_attention_heads": config.num_attention_heads,
    }
    if not isinstance(config, ChatGLMConfig):
        values |= {"kv_channels": encoder.shape.head_dim, "multi_query_group_num": encoder.shape.heads}
    return values | {"pre_seq_len": encoder.pre_seq_len, "prefix_projection": encoder.projection}
