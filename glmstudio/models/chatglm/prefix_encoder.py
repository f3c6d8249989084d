"""P-Tuning v2 for ChatGLM-6B: learned keys and values that every token sees. Knows no positions and no masks."""

import torch
from torch import nn
from transformers.cache_utils import Cache

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig


class PrefixEncoder(nn.Module):
    """`pre_seq_len` keys and values a layer, stored plainly or behind a projection, under the official names."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.config = config
        width = 2 * config.num_layers * config.hidden_size
        if config.prefix_projection:
            self.embedding = nn.Embedding(config.pre_seq_len, config.hidden_size)
            self.trans = nn.Sequential(
                nn.Linear(config.hidden_size, config.hidden_size), nn.Tanh(), nn.Linear(config.hidden_size, width)
            )
        else:
            self.embedding = nn.Embedding(config.pre_seq_len, width)

    def forward(self, cache: Cache, batch: int, dtype: torch.dtype) -> None:
        """Put the prefix in front of an empty `cache`, for `batch` rows, as `dtype`."""
        states = self.embedding.weight
        if self.config.prefix_projection:
            states = self.trans(states)
        shape = (self.config.pre_seq_len, self.config.num_layers, 2, self.config.num_attention_heads, -1)
        layers = states.to(dtype).view(shape).permute(1, 2, 3, 0, 4)
        for index, (keys, values) in enumerate(layers.unsqueeze(2).expand(-1, -1, batch, -1, -1, -1)):
            cache.update(keys, values, index)
