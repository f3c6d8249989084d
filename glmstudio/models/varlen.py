"""Attention inside each of the samples that lie end to end in one sequence: one function for every family.

It is registered with transformers under `NAME` and runs where a pass asks for it, within `inside_samples`; what the
pass brings as `packing` says how: a `Packing`, or what attends itself, for rows that are being answered.
Knows lengths and tensors: no batch, no loss, no adapter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.positions import position_ids_for
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.flash import HALF, attend_all, can_flash
from glmstudio.models.packing import Packing
from glmstudio.models.torch_internals import softmax_gradient
from glmstudio.models.transformers_internals import other_attention

NAME = "glmstudio_varlen"
# Up to here `ShortSample` beats the CPU's own attention in half numbers: 23 to 81 ms, forward and backward, for 8
# samples of 141 tokens and 16 heads; beyond, its n² scores cost more. In float32 torch's own is never clearly slower.
SHORT_TOKENS = 512
# Samples that begin alike with fewer tokens gain less than their attention over two sections costs.
LEAST_SHARED = 16


class Attending(Protocol):
    """A packing that keeps keys and values of its own."""

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
        dropout: float,
    ) -> torch.Tensor: ...


def can_pack(config: PreTrainedConfig) -> bool:
    """Whether samples of this model may lie end to end: the families of the table, which a test compares one by one.

    Another family may cap its scores or carry a state from token to token, which this attention knows nothing of.
    """
    return config.model_type in FAMILIES and FAMILIES[config.model_type].packs


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether no token sees a later one: what samples begin with alike is then alike inside the model, too."""
    return not isinstance(config, ChatGLMConfig)


@contextmanager
def inside_samples(config: PreTrainedConfig) -> Iterator[None]:
    """Within, the decoder of this config takes inputs with a `packing`, and nothing else; for the holder of the base's
    turn. With gradient checkpointing the backward pass must lie within, too."""
    with other_attention(config, NAME):
        yield


def packed_inputs(
    config: PreTrainedConfig, input_ids: torch.Tensor, lengths: Sequence[int], continues: Sequence[int | None] = ()
) -> dict[str, Any]:
    """What a decoder gets for `input_ids` (1, total) int64, samples as in `Packing` end to end."""
    if is_causal(config):
        contexts = [0] * len(lengths)
        positions = [torch.arange(length, device=input_ids.device)[None] for length in lengths]
    else:
        positions = [position_ids_for(ids, None, config) for ids in input_ids.split(list(lengths), 1)]
        contexts = torch.stack([rows[0, 1].eq(0).sum() for rows in positions]).tolist()
    packing = Packing(tuple(lengths), tuple(contexts), tuple(continues))
    positions = [places + packing.past(number) for number, places in enumerate(positions)]
    return {"input_ids": input_ids, "position_ids": torch.cat(positions, -1), "packing": packing}


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing | Attending,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls."""
    if isinstance(packing, Packing):
        return attend_inside(packing, query, key, value, scaling, sliding_window, dropout), None
    return packing.attend(query, key, value, scaling, sliding_window, dropout), None


def attend_inside(
    packing: Packing,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    window: int | None,
    dropout: float,
) -> torch.Tensor:
    """`query` (1, heads, total, d), `key` and `value` (1, key heads, total, d) → (1, total, heads, d)."""
    if can_flash(query) and not dropout:
        return attend_all(query, key, value, packing, scaling, window)
    outputs = []
    queries, keys, values = (states.split(packing.lengths, 2) for states in (query, key, value))
    for number, (q, k, v) in enumerate(zip(queries, keys, values, strict=True)):
        front, length = packing.front(number), packing.lengths[number]
        if front is not None:
            k, v = torch.cat((keys[front], k), 2), torch.cat((values[front], v), 2)
        causal = front is None and not packing.contexts[number] and (window is None or length <= window)
        if q.dtype in HALF and k.shape[2] <= SHORT_TOKENS and not dropout:
            bias = packing.bias(number, window, torch.float32, q.device)
            outputs.append(ShortSample.apply(q, k, v, bias, scaling))
            continue
        attended = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=None if causal else packing.bias(number, window, q.dtype, q.device),
            dropout_p=dropout,
            is_causal=causal,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(attended.transpose(1, 2))
    return torch.cat(outputs, 1)


class ShortSample(torch.autograd.Function):
    """`apply(query, key, value, bias, scaling)`: one sample in half numbers, query (1, heads, n, d), key and value
    (1, key heads, m, d), bias (n, m) float32 → (1, n, heads, d).

    Scores are float32: rounded to half they would make an error four times that of everything else. The query heads
    that share a key head are rows of one matrix, and the weights stay for the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        _, heads, length, size = query.shape
        shared = key.shape[1]
        scores = query.reshape(shared, -1, size).float().mul_(scaling) @ key[0].float().transpose(1, 2)
        weights = scores.view(heads, length, -1).add_(bias).softmax(-1).to(value.dtype).view_as(scores)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling = scaling
        return (weights @ value[0]).view(1, heads, length, size).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        query, key, value, weights = ctx.saved_tensors
        shared, size = key.shape[1], query.shape[-1]
        slope = gradient.transpose(1, 2).reshape(shared, -1, size)
        of_weights = slope @ value[0].transpose(1, 2)
        of_scores = softmax_gradient(of_weights, weights).mul_(ctx.scaling)
        of_query = (of_scores @ key[0]).view(query.shape)
        of_key = of_scores.transpose(1, 2) @ query.reshape(shared, -1, size)
        return of_query, of_key[None], (weights.transpose(1, 2) @ slope)[None], None, None


AttentionInterface.register(NAME, attend)
