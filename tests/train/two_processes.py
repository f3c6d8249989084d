"""What `test_ranks.py` lets torchrun start twice: runs of two processes on the tiny base, told in `<rank>.json`."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from glmstudio.data import snapshot
from glmstudio.errors import StudioError
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training import trainer
from glmstudio.training.ranks import SHARDED, Ranks, WatchedFolder, launched
from glmstudio.training.resume import reopen
from glmstudio.training.runs import RunFolder
from glmstudio.training.train import train
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, DROPOUT, TRAIN, UNEVEN

PLAIN = LoraSettings(r=4)
# 22 rows, 8 a step: the last step of an epoch has 6, and one process computes more micro-batches than the other.
TWO = dataclasses.replace(UNEVEN, num_processes=2)
LONG = dataclasses.replace(TWO, num_train_epochs=500, logging_steps=1, eval_steps=1000, save_steps=1000)


class Runs:
    """The runs of this process; `hashes` has the digest of its adapter behind the last step of each."""

    def __init__(self, place: Path, here: Ranks) -> None:
        self._place = place
        self._here = here
        self.hashes: dict[str, str] = {}
        # Numbers of the base that were here in parts while the last run trained: in this process, and in both.
        self.kept = (0, 0)

    def run(self, name: str, settings: TrainingSettings, lora: LoraSettings, **more: Any) -> None:
        """Begins a run, or goes on with it where there is one."""
        resident = Resident(dataclasses.replace(tiny_base(), source=str(self._place / "base")))
        folder = (RunFolder if self._here.first else WatchedFolder)(self._place / name)
        resume = self._here.same(folder.path.exists())
        if self._here.first and resume:
            reopen(folder, resident.base)
        elif self._here.first:
            rows = snapshot.freeze(TRAIN, DEV, folder.path / "snapshots")
            folder.create(snapshot_id=rows.id, dataset="tiny", base=resident.base, lora=lora, settings=settings)
        self._here.wait()

        def look(progress: object) -> None:
            self.hashes[name] = digest(resident)
            parts = [weight for weight in resident.base.model.parameters() if isinstance(weight, DTensor)]
            self.kept = (sum(part.to_local().numel() for part in parts), sum(part.numel() for part in parts))

        train(resident, folder, TRAIN, DEV, lora, settings, on_progress=look, resume=resume, **more)


def digest(resident: Resident) -> str:
    found = hashlib.sha256()
    for name, parameter in sorted(resident.base.model.named_parameters()):
        if parameter.requires_grad:
            found.update(name.encode() + parameter.detach().numpy().tobytes())
    return found.hexdigest()


def main(place: Path) -> None:
    with launched() as here:
        runs = Runs(place, here)
        runs.run("plain", TWO, PLAIN)
        runs.run("straight", TWO, DROPOUT)
        # Only one of them is asked to stop, as by a signal.
        asked = iter(range(1000))
        runs.run("stopped", TWO, DROPOUT, should_stop=lambda: not here.first and next(asked) > 2)
        told: dict[str, Any] = {"stopped at": runs.hashes.pop("stopped")}
        runs.run("stopped", TWO, DROPOUT)
        with short_in_second(here):
            runs.run("short", TWO, PLAIN)
        runs.run("long", LONG, PLAIN, should_stop=lambda: True)
        with in_parts():
            runs.run("sharded", TWO, PLAIN)
            told["kept"] = runs.kept
            asked = iter(range(1000))
            runs.run("sharded stopped", TWO, PLAIN, should_stop=lambda: not here.first and next(asked) > 2)
            told["sharded stopped at"] = runs.hashes["sharded stopped"]
            runs.run("sharded stopped", TWO, PLAIN)
        told |= {"hashes": runs.hashes, "failure": failure(runs, here)}
        (place / f"{here.index}.json").write_text(json.dumps(told))


@contextmanager
def in_parts() -> Iterator[None]:
    """As where accelerate's configuration has FSDP."""
    os.environ[SHARDED] = "true"
    yield
    os.environ[SHARDED] = "false"


@contextmanager
def short_in_second(here: Ranks) -> Iterator[None]:
    """Lets memory run out once, in the second process alone and the second micro-batch of its first step."""
    loss, calls = trainer.target_loss, iter(range(1000))

    def breaks(*arguments: Any) -> Any:
        if here.index == 1 and next(calls) == 1:
            raise MemoryError
        return loss(*arguments)

    trainer.target_loss = breaks
    yield
    trainer.target_loss = loss


def failure(runs: Runs, here: Ranks) -> tuple[str, dict[str, object]]:
    """What both say where one runs out of memory."""
    loss, left = trainer.target_loss, iter(range(5))

    def breaks(*arguments: Any) -> Any:
        if here.index == 1 and next(left, None) is None:
            raise MemoryError
        return loss(*arguments)

    trainer.target_loss = breaks
    try:
        runs.run("failed", TWO, PLAIN)
    except StudioError as error:
        return error.code, error.params
    raise AssertionError("the run went to its end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
