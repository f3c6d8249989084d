"""Measurements one after another, each in its own process. Imports no torch: what a child inherits must be small."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError

Job = dict[str, Any]
Measure = Callable[[Job], dict[str, Any]]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measured(job: Job) -> dict[str, Any]:
    """The result of `worker.run_job` in a new process. Raises StudioError `bench-failed` with its last words."""
    return in_process("glmstudio.benchmarks.worker", job)


def in_process(module: str, job: Job, *, python: str = "") -> dict[str, Any]:
    """What the module's `run_job` gives, in a new process of an interpreter, by default this one's; as a program the
    module calls `answer`. Raises StudioError `bench-failed` with its last words.
    """
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | dict.fromkeys(THREADS, str(job["threads"])) | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        asked, result = Path(place) / "job.json", Path(place) / "result.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        command = [python or sys.executable, "-m", module, str(asked), str(result)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        if not result.exists():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StudioError("bench-failed", way=job["way"], reason=reason)
        return json.loads(result.read_text(encoding="utf-8"))


def answer(run_job: Callable[[Job], dict[str, Any]]) -> None:
    """The other end of `in_process`: what the module does there as a program."""
    asked, result = map(Path, sys.argv[1:3])
    result.write_text(json.dumps(run_job(json.loads(asked.read_text(encoding="utf-8")))), encoding="utf-8")


def installed(module: str, python: str = "") -> bool:
    """Whether an interpreter, by default this one, finds a module. Raises StudioError `bench-python` where it does not
    start."""
    asks = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python or sys.executable, "-c", asks], capture_output=True).returncode == 0
    except OSError as error:
        raise StudioError("bench-python", python=python, reason=str(error)) from error


def interleaved(ways: Sequence[str], rounds: int, measure: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Every way once, then every way again …: what slows the machine for a while does not hit one way alone."""
    results: dict[str, list[Any]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            results[way].append(measure(way))
    return results
