"""One measurement in a process of its own, so that its peak of memory is its own: a job's JSON file in, a result out.

`python -m glmstudio.benchmarks.worker JOB RESULT`. Knows no table and no other measurement.
"""

from typing import Any

import torch
import transformers

from glmstudio.benchmarks.answering import ANSWERING, answering_job
from glmstudio.benchmarks.clock import device_name, peak_mib
from glmstudio.benchmarks.limit import matmul_rate, training_flop
from glmstudio.benchmarks.llama_factory import llama_factory
from glmstudio.benchmarks.processes import answer
from glmstudio.benchmarks.profiling import profiled
from glmstudio.benchmarks.random_base import LORA, Shape, random_base
from glmstudio.benchmarks.rows import bench_rows
from glmstudio.benchmarks.training import LLAMA_FACTORY
from glmstudio.benchmarks.ways import ROWS, SETTINGS, WAYS, rendered
from glmstudio.environment import prepare

MATMUL, PROFILE = "matmul", "profile"


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """The result of a job: a way to train or to answer, `MATMUL` or `PROFILE`, with what that needs."""
    torch.set_num_threads(job["threads"])
    base = random_base(Shape(**job["shape"]), job["device"])
    if job["way"] in ANSWERING:
        return answering_job(base, job)
    if job["way"] == MATMUL:
        return _limit(base, job)
    if job["way"] == PROFILE:
        return profiled(base, bench_rows(job["rows"], ROWS * job["updates"], base.model.config.vocab_size))
    return _training(base, job)


def _training(base: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Losses of updates on the same eight rows, whose order cannot matter, then the time of `updates` on other rows.

    The first also warms up.
    """
    vocabulary = base.model.config.vocab_size
    same, rows = (bench_rows(job["rows"], count, vocabulary) for count in (ROWS, ROWS * job["updates"]))
    if job["way"] == LLAMA_FACTORY:
        found = llama_factory(base, same, rows, job, SETTINGS)
    else:
        way = WAYS[job["way"]]
        losses = way(base, same, job["loss_updates"]).losses
        found = {"losses": losses, "seconds": way(base, rows, 1).seconds, "peak_mib": peak_mib(base.device)}
    return found | {"samples": len(rows), "tokens": sum(len(row.ids) for row in rendered(base, rows))}


def _limit(base: Any, job: dict[str, Any]) -> dict[str, Any]:
    rows = rendered(base, bench_rows(job["rows"], ROWS * job["updates"], base.model.config.vocab_size))
    tokens = sum(len(row.ids) for row in rows)
    return {
        "flop_per_token": training_flop(base.model, LORA[base.family.name], rows) / tokens,
        "rate": matmul_rate(base.model, base.device, base.dtype),
        "device": device_name(base.device),
    }


if __name__ == "__main__":
    prepare()
    transformers.logging.set_verbosity_error()
    answer(run_job)
