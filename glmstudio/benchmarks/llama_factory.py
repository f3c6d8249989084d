"""LLaMA-Factory on the same model and rows: what it needs in a folder, then its training in its own environment.

It pins older packages than ours, so the interpreter that has it is mostly another one. Knows no timing.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from glmstudio.benchmarks.processes import Job, in_process
from glmstudio.benchmarks.random_base import LORA
from glmstudio.data.example import Example, join_context
from glmstudio.models.base import Base
from glmstudio.settings import TrainingSettings

SAME, TIMED = "same", "timed"


def llama_factory(
    base: Base, same: Sequence[Example], rows: Sequence[Example], job: Job, settings: TrainingSettings
) -> dict[str, Any]:
    """Losses of the job's `loss_updates` on the rows `same`, seconds of one pass over `rows` and the peak of memory.

    The model goes through a folder, as its users' do. Rows are prompts and answers that give our tokens, so its
    template adds nothing. What is no part of the task (checkpointing, attention, the adapter's dtype) is its own
    default. Raises StudioError `bench-failed` with its last words.
    """
    lora = LORA[base.family.name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base.model.save_pretrained(folder / "model")
        base.tokenizer.save_pretrained(folder / "model")
        datasets = {SAME: same, TIMED: rows}
        (folder / "dataset_info.json").write_text(json.dumps({name: {"file_name": _file(name)} for name in datasets}))
        for name, examples in datasets.items():
            pairs = [_alpaca(row, base.tokenizer.eos_token) for row in examples]
            (folder / _file(name)).write_text(json.dumps(pairs))
        arguments = {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": str(folder / "model"),
            "dataset_dir": str(folder),
            "template": "empty",
            "finetuning_type": "lora",
            "lora_rank": lora.r,
            "lora_alpha": lora.lora_alpha,
            "lora_target": ",".join(lora.target_modules),
            "per_device_train_batch_size": len(same),
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": settings.lr_scheduler_type,
            "max_grad_norm": settings.max_grad_norm,
            "seed": settings.seed,
            "bf16": base.dtype == torch.bfloat16,
            "use_cpu": base.device.type == "cpu",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
        }
        runs = {
            name: arguments | {"dataset": name, "num_train_epochs": epochs, "output_dir": str(folder / f"{name}-out")}
            for name, epochs in ((SAME, job["loss_updates"]), (TIMED, 1))
        }
        theirs = {"way": job["way"], "threads": job["threads"], "device": str(base.device), "runs": runs}
        found = in_process("glmstudio.benchmarks.llama_factory_worker", theirs, python=job["llama_factory"])
    # The first run also warms up.
    losses, seconds = found["runs"][SAME]["losses"], found["runs"][TIMED]["seconds"]
    return {"losses": losses, "seconds": seconds, "peak_mib": found["peak_mib"]}


def _file(dataset: str) -> str:
    return f"{dataset}.json"


def _alpaca(row: Example, end: str) -> dict[str, str]:
    return {"instruction": join_context(row.instruction, row.input), "input": "", "output": f"{row.target} {end}"}
