"""Short runs on the tiny base, and what they leave."""

import dataclasses
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch

from glmstudio.data.example import Example
from glmstudio.data.kept_rows import RowSet
from glmstudio.data.quality import Finding
from glmstudio.models.base import Base
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.check import check
from glmstudio.training.metrics import MetricRecord, read_from
from glmstudio.training.pause_wish import PauseWish
from glmstudio.training.resume import reopen
from glmstudio.training.runs import Run, RunFolder
from glmstudio.training.token_counts import TokenCounts
from glmstudio.training.train import Progress, train
from tests.tiny_base import rows, tiny_base

# Every run ends with a collection, which would walk over all that torch and transformers made at their import.
gc.freeze()

TRAIN, DEV = rows(22), rows(6, split="dev", first=100)
FAST = TrainingSettings(num_train_epochs=2, learning_rate=2e-2, per_device_train_batch_size=4)
DROPOUT = LoraSettings(r=4, lora_dropout=0.2)
# Checkpoints, evaluations and records fall on different steps, and steps are cut by tokens.
UNEVEN = dataclasses.replace(
    FAST,
    num_train_epochs=2.5,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    token_budget=130,
    logging_steps=4,
    eval_steps=5,
    save_steps=3,
)
MEASURED = ("loss", "learning_rate", "grad_norm")


def checked(
    base: Base | None,
    train_rows: Sequence[Example],
    dev_rows: Sequence[Example],
    lora: LoraSettings,
    settings: TrainingSettings,
) -> list[Finding]:
    """What the check finds in rows that were never seen before."""
    rows = RowSet.of(train_rows, dev_rows)
    return check(base, rows, lora, settings, lambda: TokenCounts().sizes(base.tokenizer, base.family, rows, settings))


def run_in(
    folder: Path,
    settings: TrainingSettings = FAST,
    *,
    lora: LoraSettings | None = None,
    train_rows: list[Example] = TRAIN,
    dev_rows: list[Example] = DEV,
    resident: Resident | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    pause: PauseWish | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    resident = resident or Resident(tiny_base())
    lora = lora or LoraSettings(r=4)
    place = RunFolder(folder)
    place.create(snapshot_id="abc", dataset="tiny", base=resident.base, lora=lora, settings=settings)
    return train(
        resident, place, train_rows, dev_rows, lora, settings,
        should_stop=should_stop, pause=pause, on_progress=on_progress,
    )  # fmt: skip


def resume_in(
    folder: Path,
    *,
    train_rows: list[Example] = TRAIN,
    dev_rows: list[Example] = DEV,
    resident: Resident | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Goes on with the run of `folder`, on a base that was loaded anew unless there is one."""
    resident = resident or Resident(tiny_base())
    place = RunFolder(folder)
    run = reopen(place, resident.base)
    return train(
        resident,
        place,
        train_rows,
        dev_rows,
        run.lora,
        run.settings,
        should_stop=should_stop,
        on_progress=on_progress,
        resume=True,
    )


def records(folder: Path, kind: str = "") -> list[MetricRecord]:
    found, _ = read_from(RunFolder(folder).metrics_path)
    return [record for record in found if not kind or record.kind == kind]


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(adapter / "adapter_model.safetensors")


def bytes_of(adapter: Path) -> bytes:
    return (adapter / "adapter_model.safetensors").read_bytes()


def curve(folder: Path) -> list[tuple]:
    """What must be the same of the records: all but times and speeds."""
    found = [record for record in records(folder) if record.kind != "system"]
    return [
        (record.kind, record.step, record.epoch, *(record.values.get(name) for name in (*MEASURED, "code", "former")))
        for record in found
    ]


def assert_same(folder: Path, expected: Path, names: Sequence[str] = ()) -> None:
    """Two runs ended with the same bytes, in all their checkpoints or those named, and drew the same curve."""
    if not names:
        names = RunFolder(expected).checkpoints()
        assert RunFolder(folder).checkpoints() == names
    for name in names:
        assert bytes_of(folder / name) == bytes_of(expected / name), name
    run, undisturbed = RunFolder(folder).read(), RunFolder(expected).read()
    for name in ("status", "step", "total", "best_step", "best_eval_loss", "error"):
        assert getattr(run, name) == getattr(undisturbed, name), name
    assert curve(folder) == curve(expected)
