"""Rows of one pass through different LoRA adapters: the base's product once for all, each adapter's thin one for its
rows. Knows PEFT's layers and where rows lie: no cache, no turn.

PEFT's own `adapter_names` walks all modules twice a pass and indexes rows in every layer; on small models that takes
as long as the model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn
from torch.nn import functional as F

from glmstudio.models.packed_weights import PackedWeights
from glmstudio.models.processor import multiplies_well, onednn_gains

# From so many rows on, and with so many weights, oneDNN's product beats torch's own where it gains. In float32, where
# torch multiplies well, a step of 2 rows takes 0.7 times as long with torch's, one of 16 rows 1.2 times.
FEWEST_ROWS_MULTIPLIED_WELL = 8
FEWEST_WEIGHTS = 2**16
# With copies of so many weights, 1 or 2 rows take up to 1.7 times as long as 4: zeros fill up to those.
FEWEST_WEIGHTS_FILLED_UP, ROWS_FILLED_UP, FILLED_ROWS = 2**19, 2, 4


class _Part(NamedTuple):
    """Rows from `start` to `stop` get `inputs @ a @ b`; a (in, r), b (r, out) times the scaling, both float32."""

    start: int
    stop: int
    a: torch.Tensor
    b: torch.Tensor


class MixedRows:
    """What is known of the adapters on `model` at one time; make it anew after one came or went."""

    def __init__(self, model: nn.Module, packed: PackedWeights) -> None:
        self._packed = packed
        modules = list(model.modules())
        self._layers = [module for module in modules if isinstance(module, LoraLayer)]
        self._own = all(map(_is_linear, self._layers)) and not any(
            isinstance(module, AuxiliaryTrainingWrapper)
            or (isinstance(module, BaseTunerLayer) and not isinstance(module, LoraLayer))
            for module in modules
        )
        self._linear = [module for module in modules if _gains(module)]
        self._plain: dict[str, bool] = {}
        self._factors: dict[str, list[tuple[torch.Tensor, torch.Tensor] | None]] = {}
        self._last: tuple[Any, list[tuple[nn.Module, Any]]] = (None, [])

    def can(self, names: Sequence[str]) -> bool:
        """Whether these adapters are nothing but plain LoRA on linear layers, and so is all that lies beside them."""
        for name in {*names} - {*self._plain}:
            self._plain[name] = self._own and all(_is_plain(layer, name) for layer in self._layers)
        return all(self._plain[name] for name in {*names})

    @contextmanager
    def applied(self, names: Sequence[str], tokens: Sequence[int]) -> Iterator[None]:
        """Within, `tokens[i]` rows of every layer's input go through the adapter `names[i]`, or the base where no layer
        has one of that name; they lie in this order. The layers are as they were afterwards."""
        before = []
        for layer, forward in self._forwards(names, tokens):
            before.append((layer, layer.__dict__.get("forward")))
            layer.__dict__["forward"] = forward
        try:
            yield
        finally:
            for layer, forward in reversed(before):
                if forward is None:
                    del layer.__dict__["forward"]
                else:
                    layer.__dict__["forward"] = forward

    def _forwards(self, names: Sequence[str], tokens: Sequence[int]) -> list[tuple[nn.Module, Any]]:
        """The layers and how each computes; kept for the next pass, which is mostly one of the same rows."""
        runs, start = [], 0
        for name, group in groupby(zip(names, tokens, strict=True), key=lambda pair: pair[0]):
            stop = start + sum(count for _, count in group)
            runs.append((name, start, stop))
            start = stop
        if self._last[0] != runs:
            self._last = (runs, self._made(runs, start))
        return self._last[1]

    def _made(self, runs: list[tuple[str, int, int]], rows: int) -> list[tuple[nn.Module, Any]]:
        forwards: list[tuple[nn.Module, Any]] = [
            (layer, partial(_onednn, layer, self._packed.of(layer.weight)))
            for layer in self._linear
            if rows >= _fewest_rows(layer.weight.dtype)
        ]
        for number, layer in enumerate(self._layers):
            parts = []
            for name, start, stop in runs:
                factors = self._of(name)[number]
                if factors is not None:
                    parts.append(_Part(start, stop, *factors))
            forwards.append((layer, partial(_mixed, layer.base_layer, parts) if parts else layer.base_layer))
        return forwards

    def _of(self, name: str) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
        if name not in self._factors:
            self._factors[name] = [
                None
                if name not in layer.lora_A
                else (
                    layer.lora_A[name].weight.detach().t().contiguous(),
                    (layer.lora_B[name].weight.detach() * layer.scaling[name]).t().contiguous(),
                )
                for layer in self._layers
            ]
        return self._factors[name]


def _mixed(base: nn.Module, parts: list[_Part], inputs: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
    result = base(inputs, *rest, **more)
    states, rows = inputs.flatten(0, -2), result.view(-1, result.shape[-1])
    for start, stop, a, b in parts:
        some = states[start:stop]
        if rows.dtype == a.dtype:
            rows[start:stop].addmm_(some @ a, b)
        else:
            rows[start:stop].add_(some.to(a.dtype) @ a @ b)
    return result


def _onednn(layer: nn.Linear, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """`weight` is the layer's own or its copy."""
    rows = inputs.flatten(0, -2)
    # The head sees fewer rows than the pass has.
    if len(rows) < _fewest_rows(inputs.dtype):
        return F.linear(inputs, layer.weight, layer.bias)
    count = len(rows)
    if count <= ROWS_FILLED_UP and weight is not layer.weight and weight.numel() >= FEWEST_WEIGHTS_FILLED_UP:
        rows = F.pad(rows, (0, 0, 0, FILLED_ROWS - count))
    result = torch.ops.mkldnn._linear_pointwise(rows, weight, layer.bias, "none", [], "")[:count]
    return result.view(*inputs.shape[:-1], -1)


def _fewest_rows(dtype: torch.dtype) -> int:
    return FEWEST_ROWS_MULTIPLIED_WELL if dtype == torch.float32 and multiplies_well() else 1


def _gains(module: nn.Module) -> bool:
    """Whether oneDNN computes this layer faster where there are enough rows."""
    if not isinstance(module, nn.Linear):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.numel() >= FEWEST_WEIGHTS and onednn_gains(weight.dtype)


def _is_linear(layer: LoraLayer) -> bool:
    return isinstance(layer.get_base_layer(), nn.Linear) and not layer.lora_embedding_A


def _is_plain(layer: LoraLayer, name: str) -> bool:
    if name not in layer.lora_A:
        return True
    a, b = layer.lora_A[name], layer.lora_B[name]
    own = all(type(part) is nn.Linear and part.bias is None and part.weight.dtype == torch.float32 for part in (a, b))
    return own and name not in layer.lora_variant
