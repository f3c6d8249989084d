"""Starts the weights so that copying is there within minutes. Knows no text and no training.

Two layers get what an induction circuit needs. Layer 0 looks one token back: biases alone make the query the key of the
place before, in both rows of positions. Layer 1 matches a token with what stood before its earlier occurrence, in the
dimensions that the rotary embedding hardly turns, and adds that occurrence's own token. All else is small noise.
"""

import torch
from torch import nn

from glmstudio.models.chatglm.modeling_chatglm import ChatGLMAttention, ChatGLMForConditionalGeneration

ROTARY_BASE = 10000.0
EMBEDDING_STD = 0.06
WEIGHT_STD = 0.02
SHARPNESS = (7.0, 10.0)  # of the look one token back: positions in the context, positions in the answer
MATCH_GAIN = 2.0
COPY_GAIN = 1.41


def _orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]


@torch.no_grad()
def initialise(model: ChatGLMForConditionalGeneration, seed: int) -> None:
    """Fills all weights of model in place, the same for the same seed. Needs at least two layers."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            module.weight.normal_(0.0, WEIGHT_STD, generator=generator)
            module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
    model.transformer.word_embeddings.weight.normal_(0.0, EMBEDDING_STD, generator=generator)
    model.tie_weights()
    before = _look_back(model.transformer.layers[0].attention, model.config.residual_alpha, generator)
    _match_and_copy(model.transformer.layers[1].attention, model.config.residual_alpha, before, generator)


def _by_head(attention: ChatGLMAttention) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of the fused projection: weight (heads, 3, head_dim, hidden) and bias (heads, 3, head_dim)."""
    heads, size = attention.num_heads, attention.head_dim
    fused = attention.query_key_value
    return fused.weight.view(heads, 3, size, -1), fused.bias.view(heads, 3, size)


def _look_back(attention: ChatGLMAttention, alpha: float, generator: torch.Generator) -> torch.Tensor:
    """Previous-token heads; returns the orthogonal matrix P by which they mark what they fetched."""
    weight, bias = _by_head(attention)
    hidden, quarter = weight.shape[-1], attention.head_dim // 4
    angles = ROTARY_BASE ** -(torch.arange(quarter) / quarter)
    for row, sharpness in enumerate(SHARPNESS):
        first, second = (slice((2 * row + part) * quarter, (2 * row + part + 1) * quarter) for part in (0, 1))
        bias[:, 0, first], bias[:, 0, second] = sharpness * angles.cos(), -sharpness * angles.sin()
        bias[:, 1, first] = sharpness
    value, before = _orthogonal(hidden, generator), _orthogonal(hidden, generator)
    weight[:, 2] = value.view(attention.num_heads, attention.head_dim, hidden)
    attention.dense.weight.copy_(alpha * before @ value.T)
    return before


def _match_and_copy(
    attention: ChatGLMAttention, alpha: float, before: torch.Tensor, generator: torch.Generator
) -> None:
    """Heads that look for the place whose previous token is the present one, and copy what stands there."""
    weight, _ = _by_head(attention)
    heads, size, hidden = attention.num_heads, attention.head_dim, weight.shape[-1]
    slow = [
        row * (size // 2) + part * (size // 4) + n
        for row in (0, 1)
        for part in (0, 1)
        for n in range(size // 8, size // 4)
    ]
    weight[:, :2] *= 0.1
    share = _orthogonal(hidden, generator)[: heads * len(slow)].view(heads, len(slow), hidden)
    weight[:, 0, slow] = MATCH_GAIN * share
    weight[:, 1, slow] = MATCH_GAIN * share @ before.T
    value = _orthogonal(hidden, generator)
    weight[:, 2] = value.view(heads, size, hidden)
    attention.dense.weight.copy_(COPY_GAIN * alpha * value.T)
