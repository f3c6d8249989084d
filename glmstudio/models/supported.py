"""What this program asks of a causal model beyond its files, told from the config alone: the same for doctor and check.

Builds the model on "meta", where it takes no memory; what stands around its decoder is run on a few made-up states.
"""

import copy
import functools
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from glmstudio.errors import StudioError
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.linear_names import linear_names

# Their states are kept in a cache that only their own `generate` makes.
OWN_CACHE = ("minimax",)
MADE_UP_TOKENS, MADE_UP_VOCABULARY = 3, 8


def unsupported(config: PreTrainedConfig, family: Family, source: str) -> StudioError | None:
    """Why no adapter is trained on a base of this config, None where nothing is in the way: `family-cache` (it cannot
    answer either), `family-layers`, `family-checkpointing`, `family-loss`."""
    if family.name in FAMILIES:
        return None
    code = _code(_Known(config))
    return StudioError(code, family=family.name, source=source) if code else None


def unsupported_folder(folder: Path, family: Family, source: str) -> StudioError | None:
    """As `unsupported`, for the model in a folder; a config that cannot be read is told by others."""
    if family.name in FAMILIES:
        return None
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # Every config class reads its file in its own way.
        return None
    return unsupported(config, family, source)


def has_cache(model: PreTrainedModel) -> bool:
    """Whether the model keeps keys and values of what it has read, in the way that answers need."""
    takes = inspect.signature(model.forward).parameters
    return "past_key_values" in takes and model.config.model_type not in OWN_CACHE


def head_makes_logits(model: PreTrainedModel, **inputs: Any) -> bool:
    """Whether the head, put on what the decoder gives, makes the model's own logits: number for number in one pass, so
    the same in any number type. It does not where a family scales or caps before or behind its head."""
    seen: dict[str, torch.Tensor] = {}

    def see_decoder(module: nn.Module, given: Any, made: Any) -> None:
        seen["decoded"] = made.last_hidden_state

    def see_head(module: nn.Module, given: Any, made: torch.Tensor) -> None:
        seen["taken"], seen["made"] = given[0], made.clone()

    hooks = [
        model.get_decoder().register_forward_hook(see_decoder),
        model.get_output_embeddings().register_forward_hook(see_head),
    ]
    try:
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    return "made" in seen and _same(seen["decoded"], seen["taken"]) and _same(seen["made"], logits)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # A broken base, whose logits are no numbers, is left to the check of the loss.
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=0, atol=0, equal_nan=True)


class _Known:
    """A config that is equal to another one of the same content."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._text = config.to_json_string(use_diff=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@functools.lru_cache(maxsize=64)
def _code(known: _Known) -> str:
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(known.config), trust_remote_code=False)
    except Exception:  # A config that makes no model is told as such by whoever loads it.
        return ""
    if not has_cache(model):
        return "family-cache"
    if not linear_names(model):
        return "family-layers"
    if not model.supports_gradient_checkpointing:
        return "family-checkpointing"
    return "" if _head_is_alone(model.float().eval()) else "family-loss"


def _head_is_alone(model: PreTrainedModel) -> bool:
    """As `head_makes_logits`, with made-up states instead of the decoder's and a small head."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if decoder is model or not isinstance(decoder, PreTrainedModel) or not isinstance(head, nn.Linear):
        return False
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, MADE_UP_TOKENS, head.in_features, generator=generator)
    decoder.forward = lambda *args, **inputs: _Decoded(last_hidden_state=states)
    small = nn.Linear(head.in_features, MADE_UP_VOCABULARY, bias=head.bias is not None)
    model.set_output_embeddings(small)
    ids = torch.zeros(1, MADE_UP_TOKENS, dtype=torch.long, device="meta")
    try:
        return head_makes_logits(model, input_ids=ids)
    except Exception:  # What is computed beside the head lies on "meta" and does not meet the made-up states.
        return False


class _Decoded(BaseModelOutputWithPast):
    """What a decoder gives, with nothing of all that one kind or another gives beside its states."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
