"""LLaMA-Factory on the same model and rows, by its own defaults. Knows its `run_exp`; imported only when it runs."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from glmstudio.benchmarks.clock import Clock
from glmstudio.benchmarks.random_base import LORA
from glmstudio.data.example import Example
from glmstudio.models.loading import Base
from glmstudio.settings import TrainingSettings


class _Watch(TrainerCallback):
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.losses: list[float] = []
        self.seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock = Clock(self._device)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = self._clock.seconds()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def llama_factory(
    base: Base, rows: Sequence[Example], epochs: int, settings: TrainingSettings
) -> tuple[list[float], float]:
    """(losses, seconds). The model goes through a folder, as its users' do; its template adds no text of its own."""
    from llamafactory.train.tuner import run_exp

    lora, watch = LORA[base.family.name], _Watch(base.device)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base.model.save_pretrained(folder / "model")
        base.tokenizer.save_pretrained(folder / "model")
        (folder / "data").mkdir()
        (folder / "data" / "dataset_info.json").write_text(json.dumps({"bench": {"file_name": "bench.json"}}))
        alpaca = [{"instruction": row.instruction, "input": row.input, "output": row.target} for row in rows]
        (folder / "data" / "bench.json").write_text(json.dumps(alpaca))
        run_exp(
            {
                "stage": "sft",
                "do_train": True,
                "model_name_or_path": str(folder / "model"),
                "dataset": "bench",
                "dataset_dir": str(folder / "data"),
                "template": "empty",
                "finetuning_type": "lora",
                "lora_rank": lora.r,
                "lora_alpha": lora.lora_alpha,
                "lora_target": ",".join(lora.target_modules),
                "output_dir": str(folder / "out"),
                "per_device_train_batch_size": settings.per_device_train_batch_size,
                "num_train_epochs": epochs,
                "learning_rate": settings.learning_rate,
                "lr_scheduler_type": settings.lr_scheduler_type,
                "max_grad_norm": settings.max_grad_norm,
                "seed": settings.seed,
                "bf16": base.dtype == torch.bfloat16,
                "use_cpu": base.device.type == "cpu",
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
            },
            callbacks=[watch],
        )
    return watch.losses, watch.seconds
