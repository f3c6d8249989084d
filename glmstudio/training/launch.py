"""A run of several processes, started from this one, which stays with it until its end. Knows the run's folder and
torchrun; loads no model and trains nothing.

Every process loads the base again, beside the one that may be resident here. They outlive this process: the run then
goes on alone. A wish to stop becomes a Ctrl+C for the first of them. What they print goes into `run.log`.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from glmstudio.training.callbacks import Progress
from glmstudio.training.metrics import MetricRecord, read_from
from glmstudio.training.runs import LIVE, Run, RunFolder, is_alive
from glmstudio.workspace import repository_root

SECONDS_BETWEEN_LOOKS = 0.3


def train_launched(
    folder: RunFolder, root: Path, *, should_stop: Callable[[], bool], on_progress: Callable[[Progress], None]
) -> Run:
    """Lets torchrun train a queued run in its `num_processes`; gives the run as it ended, also where it failed.

    `root` is that of the workspace whose snapshots have the rows.
    """
    processes = folder.read().settings.num_processes
    words = ["train", "--queued", "--root", str(root.absolute()), "--output-dir", str(folder.path.absolute())]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(filter(None, (str(repository_root()), os.environ.get("PYTHONPATH"))))
    with folder.log_path.open("ab") as log:
        # A session of its own: a Ctrl+C at the page's terminal would reach them twice.
        started = subprocess.Popen(
            [sys.executable, *torchrun, "-m", "glmstudio", *words], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
    _stay(started, folder, should_stop, on_progress)
    return _ended(folder)


def _stay(
    started: subprocess.Popen,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    on_progress: Callable[[Progress], None],
) -> None:
    _, offset = read_from(folder.metrics_path)
    progress, stopping = Progress(folder.read().step, 0, phase="preparing"), False
    while True:
        on_progress(progress)
        try:
            started.wait(SECONDS_BETWEEN_LOOKS)
            return
        except subprocess.TimeoutExpired:
            pass
        run = folder.read()
        records, offset = read_from(folder.metrics_path, offset)
        progress = further(progress, run, records)
        if not stopping and should_stop():
            stopping = _asked_to_stop(run)


def further(progress: Progress, run: Run, records: Iterable[MetricRecord]) -> Progress:
    """The progress behind some more records of a run."""
    changes: dict[str, object] = {"best_step": run.best_step, "best_eval_loss": run.best_eval_loss}
    for record in records:
        values = record.values
        if record.kind == "train":
            speeds = {name: values[name] for name in ("loss", "steps_per_second", "tokens_per_second")}
            changes |= {"step": record.step, "epoch": record.epoch, **speeds}
            left = run.total - record.step
            changes["seconds_left"] = left / values["steps_per_second"] if values["steps_per_second"] else None
        elif record.kind == "eval":
            changes["eval_loss"] = values["loss"]
        elif record.kind == "system":
            changes["memory_bytes"] = values["memory_bytes"]
    if run.status == "running" and run.total:
        changes |= {"total": run.total, "phase": "training"}
    return dataclasses.replace(progress, **changes)


def _asked_to_stop(run: Run) -> bool:
    """Whether it could be asked: a process that has not begun to train does not listen yet."""
    if run.status != "running" or run.process["pid"] == os.getpid() or not is_alive(run):
        return False
    psutil.Process(int(run.process["pid"])).send_signal(signal.SIGINT)
    return True


def _ended(folder: RunFolder) -> Run:
    run = folder.read()
    if run.status not in LIVE:
        return run
    # It ended before it could write down why: torchrun's report is in the log.
    folder.discard_half_written()
    error = {"code": "launch-failed", "params": {"log": str(folder.log_path)}}
    return folder.update(status="failed", error=error, finished_at=time.time())
