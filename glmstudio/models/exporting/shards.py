"""Tensors into safetensors files of a bounded size with their index. Knows names and tensors, no model."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from glmstudio.models.tensor_writing import save_tensors

SHARD_BYTES = 5 * 10**9


def tensor_bytes(named: Mapping[str, torch.Tensor]) -> int:
    """What the tensors take on disk, each name counted even where two share their memory."""
    return sum(value.numel() * value.element_size() for value in named.values())


def write_shards(
    folder: Path,
    named: Mapping[str, torch.Tensor],
    *,
    limit: int = SHARD_BYTES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes `model.safetensors`, or shards of at most `limit` bytes with `model.safetensors.index.json`.

    One shard at a time is copied, where its tensors lie elsewhere, share memory or are views. `on_progress(done,
    total)` counts bytes. False when `should_stop` ended it between two shards.
    """
    plan = _planned(named, limit)
    total, done, weight_map = tensor_bytes(named), 0, {}
    for number, names in enumerate(plan, start=1):
        if should_stop():
            return False
        file = "model.safetensors" if len(plan) == 1 else f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        shard = _own_memory({name: named[name] for name in names})
        save_tensors(shard, folder / file)
        weight_map |= dict.fromkeys(names, file)
        done += tensor_bytes(shard)
        on_progress(done, total)
    if len(plan) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return True


def _planned(named: Mapping[str, torch.Tensor], limit: int) -> list[list[str]]:
    plan: list[list[str]] = [[]]
    room = limit
    for name, value in named.items():
        size = value.numel() * value.element_size()
        if plan[-1] and size > room:
            plan.append([])
            room = limit
        plan[-1].append(name)
        room -= size
    return plan


def _own_memory(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, each with a memory of its own: safetensors writes no two views of one memory."""
    seen: set[int] = set()
    result = {}
    for name, value in named.items():
        memory = value.untyped_storage()
        part = memory.nbytes() != value.numel() * value.element_size()
        result[name] = value.detach().to("cpu", copy=part or memory.data_ptr() in seen).contiguous()
        seen.add(memory.data_ptr())
    return result
