"""What a training step must compute, and how fast the machine multiplies. Knows models and tensors, no way to train."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from glmstudio.benchmarks.clock import Clock
from glmstudio.models.chat_format import Rendered
from glmstudio.models.processor import onednn_takes
from glmstudio.models.torch_internals import onednn_product, onednn_weight
from glmstudio.settings import LoraSettings

# As many rows as an update of eight samples has tokens.
TOKENS = 1128
REPEATS = 5


def training_flop(model: Any, lora: LoraSettings, rows: Sequence[Rendered]) -> float:
    """Floating point operations that LoRA training on `rows` once cannot do without.

    A frozen linear layer of n weights costs 2 n forward and 2 n for the gradient of its input, so with N_body weights
    in the decoder's linear layers, T real tokens, and target tokens t:
      4 N_body T                       the body
      4 hidden vocabulary t            the head, on targets only
      6 r (in + out) T                 every adapted layer: two thin products forward, each with two gradients
      6 layers width sum(length²)      attention within each row, causal: half of two products, thrice
    The gradients in front of the first adapter, norms, activations and the softmax are left out.
    """
    tokens = sum(len(row.ids) for row in rows)
    targets = sum(sum(row.bears_loss) for row in rows)
    layers = dict(_body(model))
    body = 4 * tokens * sum(layer.in_features * layer.out_features for layer in layers.values())
    adapted = [layer for name, layer in layers.items() if name.rpartition(".")[2] in lora.target_modules]
    thin = 6 * tokens * lora.r * sum(layer.in_features + layer.out_features for layer in adapted)
    config = model.config
    head = 4 * targets * config.hidden_size * config.vocab_size
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(len(row.ids) ** 2 for row in rows)
    return float(body + thin + head + attention)


def matmul_rate(model: Any, device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of the products of one layer's own linear shapes, each the faster of F.linear and, on a CPU, oneDNN
    with packed weights."""
    shapes = {(layer.in_features, layer.out_features) for _, layer in _body(model)}
    flop = seconds = 0.0
    for inner, outer in shapes:
        states = torch.randn(TOKENS, inner, dtype=dtype, device=device)
        weight = torch.randn(outer, inner, dtype=dtype, device=device)
        flop += 2 * TOKENS * inner * outer
        seconds += min(_seconds(call, device) for call in _products(states, weight))
    return flop / seconds


def _body(model: Any) -> Iterator[tuple[str, nn.Module]]:
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if hasattr(layer, "in_features") and layer is not head:
            yield name, layer


def _products(states: torch.Tensor, weight: torch.Tensor) -> Iterator[Callable[[], torch.Tensor]]:
    yield lambda: F.linear(states, weight)
    if states.device.type == "cpu" and onednn_takes(states.dtype):
        packed = onednn_weight(weight, TOKENS)
        yield lambda: onednn_product(states, packed, None)


def _seconds(call: Callable[[], torch.Tensor], device: torch.device) -> float:
    times = []
    for _ in range(REPEATS):
        clock = Clock(device)
        call()
        times.append(clock.seconds())
    return min(times)
