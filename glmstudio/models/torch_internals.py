"""What is used here of torch that torch keeps to itself: a later version may move any of it, and a test says what."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["TorchDispatchMode", "tree_leaves"]


def onednn_has_bfloat16() -> bool:
    """Whether oneDNN computes bfloat16 on this processor, fast or not."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def onednn_weight(weight: torch.Tensor, rows: int | None = None) -> torch.Tensor:
    """A copy of `weight` (out, in) in oneDNN's own order, for products of about so many `rows`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def onednn_product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`rows` (…, in) through a linear layer whose `weight` is its own or `onednn_weight` of it: (…, out)."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def reshaped(result: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """As `view`, for a tensor that nobody else has: autograd does not take it for a view."""
    return torch.ops.aten._unsafe_view(result, shape)


def is_view(tensor: torch.Tensor) -> bool:
    """Whether autograd takes a tensor for a view of another one."""
    return tensor._is_view()


def int8_product(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """`rows` (n, in) times `weight` (out, in) int8, with a scale for each of its rows: (n, out) of the rows' type."""
    return torch._weight_int8pack_mm(rows, weight, scales)


def softmax_gradient(gradient: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The gradient of what a softmax over the last dimension, that gave `weights`, was made from."""
    return torch._softmax_backward_data(gradient, weights, -1, weights.dtype)


def flash_forward(*args: Any, **more: Any) -> tuple[torch.Tensor, ...]:
    """FlashAttention over samples end to end, as torch's kernel has it."""
    return torch.ops.aten._flash_attention_forward(*args, **more)


def flash_backward(*args: Any, **more: Any) -> tuple[torch.Tensor, ...]:
    """The way back of `flash_forward`: gradients of query, key and value."""
    return torch.ops.aten._flash_attention_backward(*args, **more)
