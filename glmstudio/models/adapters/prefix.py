"""P-Tuning v2 on any causal model with a plain cache: learned keys and values that every token of a row sees.

Works on the base's decoder from outside and changes none of its parts. Knows no files, no text and no gate.
Liu et al., "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning Universally Across Scales and Tasks", 2021,
arXiv 2110.07602.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from glmstudio.errors import StudioError
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.positions import position_ids_for
from glmstudio.models.peft_internals import without_adapters
from glmstudio.models.transformers_internals import checkpointing_with_cache

if TYPE_CHECKING:
    from glmstudio.models.base import Base

# That of the official code, on keys and values of every row while training.
DROPOUT = 0.1


@dataclass(frozen=True)
class PrefixShape:
    """Sizes of a base's cache. `embedding` is the width of the table in front of a projection."""

    layers: int
    heads: int
    head_dim: int
    hidden: int
    embedding: int

    @property
    def width(self) -> int:
        """Numbers of all keys and values of one virtual token."""
        return 2 * self.layers * self.heads * self.head_dim

    @classmethod
    def of(cls, config: PreTrainedConfig, source: str) -> "PrefixShape":
        """The shape for a model of this config. Raises StudioError `ptuning-family` where a cache is of another kind:
        a sliding window would lose the prefix, a shared or compressed one has no room for it."""
        text = config.get_text_config(decoder=True)
        cache = DynamicCache(config=config)
        plain = all(type(layer) is DynamicLayer for layer in cache.layers)
        if not plain or len(cache.layers) != text.num_hidden_layers or getattr(text, "kv_lora_rank", None):
            raise StudioError("ptuning-family", family=text.model_type, source=source)
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = cls(text.num_hidden_layers, heads, head_dim, text.hidden_size, 0)
        # ChatGLM-6B has a narrow table here, ChatGLM2 and everything since one as wide as what comes out.
        embedding = shape.hidden if isinstance(config, ChatGLMConfig) else shape.width
        return cls(shape.layers, heads, head_dim, shape.hidden, embedding)


class PrefixEncoder(nn.Module):
    """`pre_seq_len` keys and values a layer, stored plainly or behind a projection, under the official names."""

    def __init__(self, shape: PrefixShape, pre_seq_len: int, projection: bool) -> None:
        super().__init__()
        self.shape = shape
        self.pre_seq_len = pre_seq_len
        self.projection = projection
        self.embedding = nn.Embedding(pre_seq_len, shape.embedding if projection else shape.width)
        if projection:
            self.trans = nn.Sequential(
                nn.Linear(shape.embedding, shape.hidden), nn.Tanh(), nn.Linear(shape.hidden, shape.width)
            )

    def forward(self, rows: int, dtype: torch.dtype) -> torch.Tensor:
        """Keys and values for a batch of `rows`: (layers, 2, rows, heads, pre_seq_len, head_dim) as `dtype`."""
        states = self.embedding.weight
        if self.projection:
            states = self.trans(states)
        shape = self.shape
        table = states.to(dtype).view(self.pre_seq_len, shape.layers, 2, shape.heads, shape.head_dim)
        each = table.permute(1, 2, 3, 0, 4).unsqueeze(2).expand(-1, -1, rows, -1, -1, -1)
        return F.dropout(each, DROPOUT, training=self.training)


class _ReadOnlyLayer(DynamicLayer):
    """The prefix of one layer for a single pass: whatever comes behind it is not kept, so a pass can be repeated."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat((self.keys, key_states), dim=-2), torch.cat((self.values, value_states), dim=-2)


class PrefixModel(nn.Module):
    """A base with a prefix in front of every row. Its parameters are those of the prefix alone.

    `forward` and `generate` are the base's own, with its inputs and results: the prefix is never hidden, takes no
    position and no place in masks. LoRA layers that sit on the base meanwhile compute the base alone.
    """

    def __init__(self, base: "Base", encoder: PrefixEncoder) -> None:
        super().__init__()
        self.base = base
        self.transformer = nn.Module()
        self.transformer.prefix_encoder = encoder
        self._active = False

    @property
    def config(self) -> PreTrainedConfig:
        return self.base.model.config

    @property
    def prefix_encoder(self) -> PrefixEncoder:
        return self.transformer.prefix_encoder

    def get_base_model(self) -> nn.Module:
        """The base's model, as PEFT names it."""
        return self.base.model

    def train(self, mode: bool = True) -> "PrefixModel":
        """Puts prefix and base into training or evaluation mode."""
        self.base.model.train(mode)
        return super().train(mode)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """As the base's own; a pass must then be within `in_front` until its gradients are there."""
        self.base.model.activation_checkpointing_enable(**options)

    def forward(self, input_ids: torch.Tensor | None = None, **inputs: Any) -> Any:
        """One pass of the base behind the prefix."""
        with self.in_front():
            return self.base.model(input_ids=input_ids, **inputs)

    def generate(self, *args: Any, **wishes: Any) -> Any:
        """The base's `generate` behind the prefix."""
        with self.in_front():
            return self.base.model.generate(*args, **wishes)

    @contextmanager
    def in_front(self) -> Iterator[None]:
        """Within, whatever runs the base's decoder runs it behind the prefix. For one thread at a time."""
        if self._active:
            yield
            return
        decoder = self.base.model.get_decoder()
        hooks = (
            decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            decoder.register_forward_hook(_without_single_pass_cache),
        )
        modules = list(decoder.modules())
        lora = [module for module in modules if isinstance(module, BaseTunerLayer)]
        blocks = [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
        self._active = True
        try:
            with without_adapters(lora), checkpointing_with_cache(blocks):
                yield
        finally:
            self._active = False
            for hook in hooks:
                hook.remove()

    def _before(self, decoder: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple, dict]:
        """Puts the prefix into the cache that the decoder gets, at the first pass, and widens its mask."""
        ids, mask, cache = (inputs.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
        tokens = inputs["inputs_embeds"] if ids is None else ids
        if cache is None:
            keeps = inputs.get("use_cache")
            if keeps is None:
                keeps = self.config.use_cache and not self.training
            cache = DynamicCache(config=self.config)
            if not keeps:
                cache.layers = [_ReadOnlyLayer() for _ in cache.layers]
        if cache.get_seq_length() == 0:
            fill(cache, self.prefix_encoder(len(tokens), self.base.dtype))
        inputs["past_key_values"] = cache
        if inputs.get("position_ids") is None:
            seen = cache.get_seq_length() - self.prefix_encoder.pre_seq_len
            inputs["position_ids"] = _positions(self.config, tokens, ids, mask, seen)
        if mask is not None:
            # ChatGLM-6B's original mask says True = hidden, a mask of numbers what is added to the scores.
            hides = mask.dim() == 4 and (mask.is_floating_point() or isinstance(self.config, ChatGLMConfig))
            inputs["attention_mask"] = F.pad(mask, (self.prefix_encoder.pre_seq_len, 0), value=not hides)
        return args, inputs


def fill(cache: Cache, states: torch.Tensor) -> None:
    """Put keys and values (layers, 2, rows, heads, pre, head_dim) into an empty cache."""
    for index, (keys, values) in enumerate(states):
        layer = cache.layers[index]
        if isinstance(layer, _ReadOnlyLayer):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        else:
            cache.update(keys, values, index)


def _positions(
    config: PreTrainedConfig, tokens: torch.Tensor, ids: torch.Tensor | None, mask: torch.Tensor | None, seen: int
) -> torch.Tensor | None:
    """Positions as the base counts them by itself, without the prefix; None where ChatGLM-6B's decoder knows them."""
    if not isinstance(config, ChatGLMConfig):
        return torch.arange(seen, seen + tokens.shape[1], device=tokens.device)[None]
    if seen or ids is None:
        return None
    return position_ids_for(ids, mask if mask is not None and mask.dim() == 2 else None, config)


def _without_single_pass_cache(decoder: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    cache = output.past_key_values
    if cache is not None and isinstance(cache.layers[0], _ReadOnlyLayer):
        output.past_key_values = None
