"""What `test_on_cuda.py` runs in a process of its own: training with less of the card's memory than a step takes."""

import sys
from pathlib import Path

import torch

from glmstudio.benchmarks.random_base import LORA, Shape, random_base
from glmstudio.benchmarks.rows import bench_rows
from glmstudio.models.resident import Resident
from glmstudio.settings import TrainingSettings
from glmstudio.training.runs import RunFolder
from glmstudio.training.train import train

FAMILY = "chatglm"


def peak(place: Path, limit: int = 0) -> int:
    """Bytes that a run of two steps took at most, in that much memory."""
    torch.cuda.empty_cache()
    share = limit / torch.cuda.get_device_properties(0).total_memory if limit else 1.0
    torch.cuda.set_per_process_memory_fraction(share)
    base = random_base(Shape(FAMILY, "512x4", "bf16"), "cuda")
    settings = TrainingSettings(num_train_epochs=1, per_device_train_batch_size=32)
    rows = bench_rows("", 64, base.model.config.vocab_size)
    folder = RunFolder(place)
    folder.create(snapshot_id="x", dataset="x", base=base, lora=LORA[FAMILY], settings=settings)
    torch.cuda.reset_peak_memory_stats()
    train(Resident(base), folder, rows, [], LORA[FAMILY], settings)
    return torch.cuda.max_memory_reserved()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    most = peak(place.with_name("roomy"))
    peak(place, int(0.8 * most))
