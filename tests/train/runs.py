"""Short runs on the tiny base, and what they leave."""

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from glmstudio.data.example import Example
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.metrics import MetricRecord, read_from
from glmstudio.training.runs import Run, RunFolder
from glmstudio.training.train import Progress, train
from tests.tiny_base import rows, tiny_base

TRAIN, DEV = rows(22), rows(6, split="dev", first=100)
FAST = TrainingSettings(num_train_epochs=2, learning_rate=2e-2, per_device_train_batch_size=4)


def run_in(
    folder: Path,
    settings: TrainingSettings = FAST,
    *,
    lora: LoraSettings | None = None,
    train_rows: list[Example] = TRAIN,
    dev_rows: list[Example] = DEV,
    resident: Resident | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    resident = resident or Resident(tiny_base())
    lora = lora or LoraSettings(r=4)
    place = RunFolder(folder)
    place.create(snapshot_id="abc", dataset="tiny", base=resident.base, lora=lora, settings=settings)
    return train(
        resident, place, train_rows, dev_rows, lora, settings, should_stop=should_stop, on_progress=on_progress
    )


def records(folder: Path, kind: str = "") -> list[MetricRecord]:
    found, _ = read_from(RunFolder(folder).metrics_path)
    return [record for record in found if not kind or record.kind == kind]


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(adapter / "adapter_model.safetensors")


def bytes_of(adapter: Path) -> bytes:
    return (adapter / "adapter_model.safetensors").read_bytes()
