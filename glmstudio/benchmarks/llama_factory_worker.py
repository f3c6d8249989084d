"""LLaMA-Factory's training in a process of its own environment: a job's JSON file in, a result out.

`python -m glmstudio.benchmarks.llama_factory_worker JOB RESULT`. Needs torch and LLaMA-Factory, and of this project
only what imports nothing else.
"""

from typing import Any

import torch
from llamafactory.train.tuner import run_exp

from glmstudio.benchmarks.clock import Clocked, peak_mib
from glmstudio.benchmarks.processes import answer


class Watch(Clocked):
    """Has the loss of every update, too."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of every run of the job, in turn, and the peak of memory."""
    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    watches = {name: Watch(device) for name in job["runs"]}
    for name, arguments in job["runs"].items():
        run_exp(arguments, callbacks=[watches[name]])
    told = {name: {"losses": watch.losses, "seconds": watch.seconds} for name, watch in watches.items()}
    return {"runs": told, "peak_mib": peak_mib(device)}


if __name__ == "__main__":
    answer(run_job)
