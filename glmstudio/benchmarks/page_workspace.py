"""A workspace as a busy one is, for the benchmark of the page: many rows and many finished runs. Knows no page."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from glmstudio.benchmarks.processes import THREADS
from glmstudio.data.bench import made_up
from glmstudio.data.example import Example
from glmstudio.data.reading.reader import read
from glmstudio.data.store import Store
from glmstudio.errors import StudioError
from glmstudio.workspace import Workspace, repository_root

# The largest dataset, which the page chooses by itself, one for a run of many small steps, and one of a single row.
LARGE, SMALL, LONG = "large", "small", "long"
SMALL_TRAIN, SMALL_DEV = 60, 8
DEV_SHARE = 50
LONG_BYTES = 5_000_000
_RUN = "run-0001"


def prepare(root: Path, rows: int, runs: int) -> Workspace:
    """Fills `root`: `rows` rows in the large dataset, one of fifty of them for dev, and `runs` finished runs of the
    embedded base, the first one trained and the others as copies of it. Raises StudioError `bench-failed`."""
    workspace = Workspace(root).ensure()
    store = Store(workspace.database_url)
    try:
        store.add_many(
            dataclasses.replace(row, dataset=LARGE, split="train" if place % DEV_SHARE else "dev")
            for place, row in enumerate(made_up(rows))
        )
        store.add_many([*_demo_rows("train", SMALL_TRAIN), *_demo_rows("dev", SMALL_DEV)])
    finally:
        store.close()
    if runs:
        _train(root)
    for number in range(2, runs + 1):
        _copy(workspace, number)
    return workspace


def add_long_row(workspace: Workspace) -> None:
    """The newest row of all, with a text of 5 MB: the first one of every list."""
    text = "".join(row.input for row in itertools.islice(made_up(100), 100))
    store = Store(workspace.database_url)
    try:
        times = LONG_BYTES // len(text.encode())
        store.save(Example("找到句子中的三元组信息，用列表回答。", text * times, "[]", dataset=LONG))
    finally:
        store.close()


def _demo_rows(split: str, count: int) -> list[Example]:
    file = repository_root() / "data" / "demo" / f"{split}.jsonl"
    found = read(file, dataset=SMALL, split=split)
    return list(itertools.islice((row for row in found if isinstance(row, Example)), count))


def _train(root: Path) -> None:
    """Five epochs of single rows, cut short: a curve of 300 steps in half a minute."""
    few = ["--num-train-epochs", "5", "--per-device-train-batch-size", "1"]
    cut = ["--max-source-length", "24", "--max-target-length", "8"]
    command = [sys.executable, "-m", "glmstudio", "train", "--base", "embedded", "--root", str(root)]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--dataset", SMALL, *few, *cut], cwd=repository_root(), env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise StudioError("bench-failed", way=_RUN, reason=(done.stderr.strip().splitlines() or [""])[-1])


def _copy(workspace: Workspace, number: int) -> None:
    """Every file is there once on the disk; `run.json` is the copy's own."""
    first, copy = workspace.run_folder(_RUN), workspace.run_folder(f"run-{number:04d}")
    shutil.copytree(first, copy, copy_function=os.link)
    run = json.loads((first / "run.json").read_text(encoding="utf-8"))
    for name in ("created_at", "started_at", "finished_at"):
        run[name] += 60 * number
    (copy / "run.json").unlink()
    (copy / "run.json").write_text(json.dumps(run | {"id": copy.name, "number": number}, indent=2), encoding="utf-8")
