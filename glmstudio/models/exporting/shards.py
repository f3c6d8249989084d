"""Tensors into safetensors files of a bounded size with their index: the one writer of sharded checkpoints.

Knows names and tensors, no model. Which tensor goes into which file is huggingface_hub's plan, as in transformers.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import StateDictSplit, split_state_dict_into_shards_factory

from glmstudio.models.tensor_writing import save_tensors

SHARD_BYTES = 5 * 10**9


def planned(forms: Mapping[str, torch.Tensor], limit: int = SHARD_BYTES) -> StateDictSplit:
    """`model.safetensors`, or shards of at most `limit` bytes, in the order of `forms`: the tensors or their like on
    "meta". Each name is counted even where two share their memory."""
    return split_state_dict_into_shards_factory(
        dict(forms),
        get_storage_size=lambda value: value.numel() * value.element_size(),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=limit,
    )


def write_shards(
    folder: Path,
    plan: StateDictSplit,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes the files of `plan`, and `model.safetensors.index.json` where they are several.

    `tensors` are all of the plan; where they come in its order and are made as they are asked for, one shard is in
    memory. A shard is copied where its tensors lie elsewhere, share memory or are views. `on_progress(done, total)`
    counts bytes. False when `should_stop` ended it between two shards.
    """
    done, total = 0, plan.metadata["total_size"]
    waiting: dict[str, dict[str, torch.Tensor]] = {file: {} for file in plan.filename_to_tensors}
    for name, value in tensors:
        file = plan.tensor_to_filename[name]
        waiting[file][name] = value
        del value
        if len(waiting[file]) < len(plan.filename_to_tensors[file]):
            continue
        if should_stop():
            return False
        done += _save(waiting.pop(file), folder / file)
        on_progress(done, total)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return True


def _save(named: dict[str, torch.Tensor], file: Path) -> int:
    """How many bytes the tensors are, each with a memory of its own: safetensors writes no two views of one memory."""
    seen: set[int] = set()
    for name, value in named.items():
        memory = value.untyped_storage()
        part = memory.nbytes() != value.numel() * value.element_size()
        named[name] = value.detach().to("cpu", copy=part or memory.data_ptr() in seen).contiguous()
        seen.add(memory.data_ptr())
    save_tensors(named, file)
    return sum(value.nbytes for value in named.values())
