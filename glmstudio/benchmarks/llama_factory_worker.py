"""LLaMA-Factory's training in a process of its own environment: a job's JSON file in, a result out.

`python -m glmstudio.benchmarks.llama_factory_worker JOB RESULT`. Needs torch and LLaMA-Factory, and of this project
only what imports nothing else.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

from glmstudio.benchmarks.clock import Clock, peak_mib


class Watch(TrainerCallback):
    """The loss of every update, and the seconds from the first one's beginning to the last one's end."""

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


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Every run of the job in turn, the first of which also warms up."""
    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    watches = {name: Watch(device) for name in job["runs"]}
    for name, arguments in job["runs"].items():
        run_exp(arguments, callbacks=[watches[name]])
    return {
        "losses": watches["same"].losses,
        "seconds": watches["timed"].seconds,
        "peak_mib": peak_mib(device),
    }


if __name__ == "__main__":
    result = run_job(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
