"""Rows of one pass through different LoRA adapters: the base's product once for all, each adapter's thin one for its
rows; what is more than two thin products, PEFT computes adapter by adapter. Knows where rows lie: no cache, no turn.

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
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from glmstudio.models.packed_weights import PackedWeights
from glmstudio.models.peft_internals import holds_copy, one_active
from glmstudio.models.processor import multiplies_well, onednn_gains
from glmstudio.models.torch_internals import onednn_product

# From so many rows on, and with so many weights, oneDNN's product beats torch's own where it gains. In float32, where
# torch multiplies well, a step of 2 rows takes 0.7 times as long with torch's, one of 16 rows 1.2 times.
FEWEST_ROWS_MULTIPLIED_WELL = 8
FEWEST_WEIGHTS = 2**16
# With copies of so many weights, 1 or 2 rows take up to 1.7 times as long as 4: zeros fill up to those.
FEWEST_WEIGHTS_FILLED_UP, ROWS_FILLED_UP, FILLED_ROWS = 2**19, 2, 4


class _Run(NamedTuple):
    """Neighbouring rows of one adapter: their tokens from `start` to `stop`, themselves from `first` to `last`."""

    name: str
    start: int
    stop: int
    first: int
    last: int


class _Part(NamedTuple):
    """The rows of `run` get `inputs @ a @ b`; a (in, r), b (r, out) times the scaling, both float32."""

    run: _Run
    a: torch.Tensor
    b: torch.Tensor


class MixedRows:
    """What is known of the adapters on `model` at one time; make it anew after one came or went."""

    def __init__(self, model: nn.Module, packed: PackedWeights) -> None:
        self._packed = packed
        self._layers = _tuned(model)
        self._linear = [module for module in model.modules() if _gains(module)]
        self._factors: dict[str, list[tuple[torch.Tensor, torch.Tensor] | None]] = {}
        self._last: tuple[Any, list[tuple[nn.Module, Any]]] = (None, [])

    @contextmanager
    def applied(self, names: Sequence[str], tokens: Sequence[int]) -> Iterator[None]:
        """Within, `tokens[i]` rows of every layer's input go through the adapter `names[i]`, or the base where no layer
        has one of that name; they lie in this order. A head may get one row of each. The layers are as they were
        afterwards. None of the adapters may be one that `alone` names a setting of."""
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
        runs, start, first = [], 0, 0
        for name, group in groupby(zip(names, tokens, strict=True), key=lambda pair: pair[0]):
            counts = [count for _, count in group]
            runs.append(_Run(name, start, start + sum(counts), first, first + len(counts)))
            start, first = runs[-1].stop, runs[-1].last
        if self._last[0] != runs:
            self._last = (runs, self._made(runs))
        return self._last[1]

    def _made(self, runs: list[_Run]) -> list[tuple[nn.Module, Any]]:
        rows = runs[-1].stop
        forwards: list[tuple[nn.Module, Any]] = [
            (layer, partial(_onednn, layer, self._packed.of(layer.weight)))
            for layer in self._linear
            if rows >= _fewest_rows(layer.weight.dtype)
        ]
        for number, layer in enumerate(self._layers):
            tuned = [run for run in runs if _holds(layer, run.name)]
            if not tuned:
                forwards.append((layer, _untuned(layer)))
            elif all(_is_plain(layer, run.name) for run in tuned):
                parts = [_Part(run, *self._of(run.name)[number]) for run in tuned]
                forwards.append((layer, partial(_mixed, layer.base_layer, runs[-1], parts)))
            else:
                forwards.append((layer, partial(_run_by_run, layer, runs)))
        return forwards

    def _of(self, name: str) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
        if name not in self._factors:
            self._factors[name] = [
                (
                    layer.lora_A[name].weight.detach().t().contiguous(),
                    (layer.lora_B[name].weight.detach() * layer.scaling[name]).t().contiguous(),
                )
                if _holds(layer, name) and _is_plain(layer, name)
                else None
                for layer in self._layers
            ]
        return self._factors[name]


def alone(model: nn.Module, name: str) -> str | None:
    """What of the adapter `name` on `model` cannot be computed row by row, by PEFT's names; None where all can."""
    for path, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper) or not _holds(layer, name):
            continue
        if isinstance(layer, ModulesToSaveWrapper) and not _keeps_rows(layer.original_module):
            return f"modules_to_save: {path.rpartition('.')[2]}"
        own = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        # An expert sees the rows that were sent to it, in an order of its own.
        if own is not None and (".experts" in path or not isinstance(own, nn.Linear | nn.Embedding | Conv1D)):
            return f"target_modules: {path}"
    return None


def _tuned(model: nn.Module) -> list[nn.Module]:
    """PEFT's layers on `model`, without those inside of others."""
    found: list[nn.Module] = []
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if not path.startswith(inside) and isinstance(module, LoraLayer | AuxiliaryTrainingWrapper):
            found.append(module)
            inside = (*inside, f"{path}.")
    return found


def _holds(layer: Any, name: str) -> bool:
    if isinstance(layer, AuxiliaryTrainingWrapper):
        return holds_copy(layer, name)
    return any(name in getattr(layer, kind, ()) for kind in ("lora_A", "lora_embedding_A"))


def _keeps_rows(module: nn.Module) -> bool:
    """Whether every row of what it gives is made of the same row of its input: a linear layer, embeddings, a norm."""
    norm = not list(module.children()) and all(weight.dim() == 1 for weight in module.parameters())
    return norm or isinstance(module, nn.Linear | nn.Embedding)


def _untuned(layer: Any) -> Any:
    return layer.original_module if isinstance(layer, AuxiliaryTrainingWrapper) else layer.base_layer


def _bounds(run: _Run, last: _Run, rows: int) -> tuple[int, int]:
    """Where the rows of `run` lie in `rows` ones; `last` is the pass's last run."""
    if rows == last.stop:
        return run.start, run.stop
    # Behind the choice of the tokens whose logits are asked for, a row each.
    if rows == last.last:
        return run.first, run.last
    # A norm of an attention head's width sees several rows of each token.
    each = rows // last.stop
    return run.start * each, run.stop * each


def _mixed(
    base: nn.Module, last: _Run, parts: list[_Part], inputs: torch.Tensor, *rest: Any, **more: Any
) -> torch.Tensor:
    result = base(inputs, *rest, **more)
    states, rows = inputs.flatten(0, -2), result.view(-1, result.shape[-1])
    for run, a, b in parts:
        start, stop = _bounds(run, last, len(states))
        some = states[start:stop]
        if rows.dtype == a.dtype:
            rows[start:stop].addmm_(some @ a, b)
        else:
            rows[start:stop].add_(some.to(a.dtype) @ a @ b)
    return result


def _run_by_run(layer: Any, runs: list[_Run], inputs: torch.Tensor) -> torch.Tensor:
    """As PEFT computes each adapter by itself."""
    ids = not inputs.is_floating_point()
    states = inputs.flatten() if ids else inputs.flatten(0, -2)
    results = []
    for run in runs:
        start, stop = _bounds(run, runs[-1], len(states))
        results.append(_of_adapter(layer, run.name, states[None, start:stop])[0])
    result = torch.cat(results)
    return result.view(*inputs.shape[: inputs.dim() - (not ids)], result.shape[-1])


def _of_adapter(layer: Any, name: str, states: torch.Tensor) -> torch.Tensor:
    if not _holds(layer, name):
        return _untuned(layer)(states)
    if isinstance(layer, ModulesToSaveWrapper):
        return layer.modules_to_save[name](states)
    if isinstance(layer, AuxiliaryTrainingWrapper):
        return layer.token_adapter.forward_adapters(states, [name])
    with one_active(layer, name):
        return type(layer).forward(layer, states)


def _onednn(layer: nn.Linear, weight: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """`weight` is the layer's own or its copy."""
    rows = inputs.flatten(0, -2)
    # The head sees fewer rows than the pass has.
    if len(rows) < _fewest_rows(inputs.dtype):
        return F.linear(inputs, layer.weight, layer.bias)
    count = len(rows)
    if count <= ROWS_FILLED_UP and weight is not layer.weight and weight.numel() >= FEWEST_WEIGHTS_FILLED_UP:
        rows = F.pad(rows, (0, 0, 0, FILLED_ROWS - count))
    result = onednn_product(rows, weight, layer.bias)[:count]
    return result.view(*inputs.shape[:-1], -1)


def _fewest_rows(dtype: torch.dtype) -> int:
    return FEWEST_ROWS_MULTIPLIED_WELL if dtype == torch.float32 and multiplies_well() else 1


def _gains(module: nn.Module) -> bool:
    """Whether oneDNN computes this layer faster where there are enough rows."""
    if not isinstance(module, nn.Linear):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.numel() >= FEWEST_WEIGHTS and onednn_gains(weight.dtype)


def _is_plain(layer: Any, name: str) -> bool:
    """Whether an adapter is nothing but two thin products behind a linear layer."""
    if not isinstance(layer, LoraLayer) or not isinstance(layer.get_base_layer(), nn.Linear):
        return False
    a, b = layer.lora_A[name], layer.lora_B[name]
    own = all(type(part) is nn.Linear and part.bias is None and part.weight.dtype == torch.float32 for part in (a, b))
    return own and name not in layer.lora_variant
