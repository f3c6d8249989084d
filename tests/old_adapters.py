"""Makes adapters as they were written in 2023, and checkpoints with their change added by hand."""

import json
import shutil
from pathlib import Path

import torch

from glmstudio.models.base import Base
from glmstudio.models.loading import load_base

IDS = torch.tensor([[10, 11, 12, 40, 50, 20], [30, 31, 32, 60, 70, 21]])
OFFICIAL = "base_model.model.transformer.encoder.layers.{}.{}.{}"


def base_of(golden: Path) -> Base:
    return load_base(golden, device="cpu", dtype="float32")


def logits_of(model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def written(folder: Path, state: dict[str, torch.Tensor], **config) -> Path:
    """A PEFT folder of the first kind, with the config's keys of then and `config`."""
    folder.mkdir(parents=True)
    torch.save(state, folder / "adapter_model.bin")
    old = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "r": 2, "lora_alpha": 6}
    old |= {"base_model_name_or_path": None, "lora_dropout": 0.0, "fan_in_fan_out": False}
    (folder / "adapter_config.json").write_text(json.dumps(old | config), encoding="utf-8")
    return folder


def random_lora(sizes: dict[str, tuple[int, int]], layers: range, rank: int = 2, seed: int = 1) -> dict:
    """Tensors of an adapter on `sizes`, (out, in) by the official name inside a layer."""
    dice = torch.Generator().manual_seed(seed)
    state = {}
    for layer in layers:
        for module, (rows, columns) in sizes.items():
            state[OFFICIAL.format(layer, module, "lora_A.weight")] = torch.randn(rank, columns, generator=dice)
            state[OFFICIAL.format(layer, module, "lora_B.weight")] = torch.randn(rows, rank, generator=dice) * 0.1
    return state


def changed_weights(golden: Path, folder: Path, deltas: dict[str, torch.Tensor]) -> Path:
    """The official checkpoint with `deltas` added to its weights, by official module name."""
    shutil.copytree(golden, folder, ignore=shutil.ignore_patterns("*adapter*", "ptuning*", "*cases.json", "tensors.*"))
    left = dict(deltas)
    for shard in folder.glob("*.bin"):
        state = torch.load(shard, weights_only=True)
        for name in [name for name in left if f"{name}.weight" in state]:
            state[f"{name}.weight"] += left.pop(name)
        torch.save(state, shard)
    assert not left
    return folder


def deltas_of(state: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """B @ A * scale of every module of an adapter, by its name without PEFT's prefix."""
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_B.weight"): scale
        * (b @ state[name.replace("lora_B", "lora_A")])
        for name, b in state.items()
        if name.endswith("lora_B.weight")
    }


def fused(rows: int = 128, columns: int = 64, layers: int = 3) -> dict[str, torch.Tensor]:
    return random_lora({"self_attention.query_key_value": (rows, columns)}, range(layers))
