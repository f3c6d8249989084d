"""Runs whose process is killed at random moments, several times over, end with the bytes of an undisturbed one.

`GLMSTUDIO_KILL_SEED=4 pytest tests/train/test_kills.py` kills at other moments, `GLMSTUDIO_KILLS` more often.
"""

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from tests.train.broken_off import train_until
from tests.train.runs import assert_same, records

KILLS = int(os.environ.get("GLMSTUDIO_KILLS", "20"))
SEED = int(os.environ.get("GLMSTUDIO_KILL_SEED", "3"))

pytestmark = pytest.mark.slow


def exit_code(folder: Path, last: int) -> int:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.train.broken_off"])
    child = processes.Process(target=train_until, args=(folder, last))
    child.start()
    child.join(600)
    return child.exitcode


def test_killed_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert exit_code(undisturbed, 0) == 0
    moments = int((tmp_path / "undisturbed.moments").read_text())
    chance, kills = random.Random(SEED), 0
    while kills < KILLS:
        folder = tmp_path / f"run-after-{kills}"
        # Early enough that most runs are killed more than once.
        while code := exit_code(folder, chance.randrange(1, moments // 2) if kills < KILLS else 0):
            assert code == -signal.SIGKILL
            kills += 1
        assert_same(folder, undisturbed)
        steps = [record.step for record in records(folder, "train")]
        assert steps == sorted(set(steps))
