"""Official folders with quantised weights, made here from the golden ones: the formula of the official quantiser."""

import json
import shutil
from pathlib import Path

import torch

LINEAR = ("query_key_value.weight", "dense.weight", "dense_h_to_4h.weight", "dense_4h_to_h.weight")


def quantised(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values int8, unpacked; scale half by row)."""
    scale = (weight.abs().amax(1) / (2 ** (bits - 1) - 1)).half()
    return torch.round(weight / scale.float()[:, None]).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), scale


def two_in_a_byte(values: torch.Tensor) -> torch.Tensor:
    """Pairs of 4-bit values, the first in the high half: arithmetic on numbers, no shifts."""
    rows = []
    for row in values.int().tolist():
        pairs = zip(row[::2], row[1::2], strict=True)
        numbers = [(first % 16) * 16 + second % 16 for first, second in pairs]
        rows.append([number - 256 if number > 127 else number for number in numbers])
    return torch.tensor(rows, dtype=torch.int8)


def quantised_folder(source: Path, folder: Path, bits: int) -> tuple[Path, Path]:
    """(folder with packed weights, folder with what they stand for in float32), both with official names."""
    packed_folder, full_folder = folder / f"int{bits}", folder / "full"
    for made in (packed_folder, full_folder):
        made.mkdir(parents=True)
        for file in source.glob("*.json"):
            shutil.copy(file, made)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"quantization_bit": bits, "quantization_embeddings": False}
    (packed_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for shard in source.glob("pytorch_model-*.bin"):
        packed, full = {}, {}
        for name, weight in torch.load(shard, weights_only=True).items():
            full[name] = packed[name] = weight
            if name.endswith(LINEAR):
                values, scale = quantised(weight.float(), bits)
                full[name] = values * scale.float()[:, None]
                packed[name] = two_in_a_byte(values) if bits == 4 else values.to(torch.int8)
                packed[f"{name}_scale"] = scale
        torch.save(packed, packed_folder / shard.name)
        torch.save(full, full_folder / shard.name)
    return packed_folder, full_folder
