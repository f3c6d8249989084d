"""The trackers that a run reports to beside its own record, `metrics.jsonl`. Knows their packages and the run's folder.

Each keeps its files in the run's folder, trackio in its own database of all runs. Without an account nothing is sent:
SwanLab and wandb then write what their `sync` sends later. Accounts stay where those packages keep them.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from glmstudio.errors import StudioError

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from glmstudio.training.runs import RunFolder

PROJECT = "glmstudio"


def missing(report_to: str) -> StudioError | None:
    """`report-missing` where the tracker's package, which is called like the choice, is not installed."""
    if report_to == "none" or importlib.util.find_spec(report_to) is not None:
        return None
    return StudioError("report-missing", package=report_to)


@contextmanager
def reporting(report_to: str, folder: "RunFolder", step: int) -> Iterator[list["TrainerCallback"]]:
    """The Trainer's callbacks for a tracker; what goes on behind `step` is reported. The tracker's run is called like
    the folder and ends with this context. Raises StudioError `report-missing`."""
    if error := missing(report_to):
        raise error
    if report_to == "none":
        yield []
        return
    begun = {"tensorboard": _tensorboard, "swanlab": _swanlab, "trackio": _trackio, "wandb": _wandb}[report_to]
    with begun(folder, step) as callback:
        yield [callback]


@contextmanager
def _tensorboard(folder: "RunFolder", step: int) -> Iterator["TrainerCallback"]:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    # Behind a checkpoint, points of the sitting before are drawn no more.
    writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=step + 1 if step else None)
    try:
        yield TensorBoardCallback(writer)
    finally:
        writer.close()


@contextmanager
def _swanlab(folder: "RunFolder", step: int) -> Iterator["TrainerCallback"]:
    import swanlab
    from transformers.integrations import SwanLabCallback

    known = os.environ.get("SWANLAB_MODE") or swanlab.Settings().api_key
    swanlab.init(
        project=os.environ.get("SWANLAB_PROJECT", PROJECT), experiment_name=folder.path.name,
        log_dir=str(folder.path / "swanlab"), mode=None if known else "offline",
    )  # fmt: skip
    try:
        yield SwanLabCallback()
    finally:
        swanlab.finish()


@contextmanager
def _trackio(folder: "RunFolder", step: int) -> Iterator["TrainerCallback"]:
    import trackio
    from transformers.integrations import TrackioCallback

    try:
        # It opens the run that the Trainer's arguments name, and ends it where training goes to its end.
        yield TrackioCallback()
    finally:
        with suppress(RuntimeError):
            trackio.finish()


@contextmanager
def _wandb(folder: "RunFolder", step: int) -> Iterator["TrainerCallback"]:
    import wandb
    from transformers.integrations import WandbCallback

    known = os.environ.get("WANDB_MODE") or wandb.api.api_key
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.path.name, dir=str(folder.path),
        mode=None if known else "offline",
    )  # fmt: skip
    try:
        yield WandbCallback()
    finally:
        wandb.finish()
