"""A run in a process that kills itself: at a file that it opens or moves, in the middle of a step, between two steps.

For the children of a fork server, so that torch is imported once. The run is the one of `tests.train.runs.UNEVEN`.
"""

import os
import signal
import sys
from pathlib import Path

from glmstudio.training import trainer
from tests.train.runs import DROPOUT, UNEVEN, resume_in, run_in

FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


class Moments:
    """Counts moments of a run; at number `last` the process dies. With 0 it lives, and `count` tells how many there
    were. Names inside the run's folder count only, so that nothing does once the run has said that it is finished."""

    def __init__(self, folder: Path, last: int) -> None:
        self.count = 0
        self._inside = f"{folder}{os.sep}"
        self._last = last
        sys.addaudithook(self._on_event)

    def pass_one(self, *_: object) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in FILE_EVENTS:
            return
        # shutil.rmtree removes by names that are relative to the descriptor of their folder.
        by_descriptor = event in ("os.remove", "os.rmdir") and arguments[1] != -1
        if by_descriptor or str(arguments[0]).startswith(self._inside):
            self.pass_one()


def train_until(folder: Path, last: int) -> None:
    """Begins the run of `folder`, or goes on with it, and dies at moment `last`; writes how many moments there were."""
    moments, loss = Moments(folder, last), trainer.target_loss

    def interrupted_loss(*arguments: object) -> object:
        moments.pass_one()
        return loss(*arguments)

    trainer.target_loss = interrupted_loss
    if (folder / "run.json").exists():
        resume_in(folder, on_progress=moments.pass_one)
    else:
        run_in(folder, UNEVEN, lora=DROPOUT, on_progress=moments.pass_one)
    folder.with_suffix(".moments").write_text(str(moments.count))
