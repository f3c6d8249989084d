"""A run of several processes: what the first one tells the others, and what those do. Knows no model."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio import terminal
from glmstudio.commands.flags import stop_on_interrupt
from glmstudio.data import snapshot
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.base import Base
    from glmstudio.models.resident import Resident
    from glmstudio.training.probe import Probe
    from glmstudio.training.ranks import Ranks
    from glmstudio.training.runs import BaseFacts, RunFolder


@dataclass(frozen=True)
class Begun:
    """A run that is ready to train: its folder is written. `go_on` for one that has trained before."""

    resident: "Resident"
    folder: "RunFolder"
    frozen: snapshot.Snapshot
    go_on: bool


@dataclass(frozen=True)
class Plan:
    """What the other processes need of it."""

    folder: Path
    snapshot: Path
    base: "BaseFacts"
    go_on: bool

    @classmethod
    def of(cls, begun: Begun) -> "Plan":
        folder = begun.folder
        return cls(folder.path.absolute(), begun.frozen.folder.absolute(), folder.read().base, begun.go_on)


def tell(here: "Ranks", begun: Begun | None) -> None:
    """Gives the others the plan; they end without one. Raises what keeps one of them from it."""
    here.same(Plan.of(begun) if begun is not None else None)
    if begun is not None:
        with here.together():
            pass


def follow(here: "Ranks") -> int:
    """Trains with the first process and says nothing: what fails in all of them is told there. Gives an exit code,
    0 also where it does, because any other would end the first one before it has written that down."""
    from glmstudio.training.ranks import is_shared

    plan: Plan | None = here.same(None)
    if plan is None:
        return 0
    try:
        _train(here, plan)
    except StudioError as error:
        if not is_shared(error):
            terminal.print_error(error)
            return 1
    return 0


def _train(here: "Ranks", plan: Plan) -> None:
    from glmstudio.models.resident import Resident
    from glmstudio.training.ranks import WatchedFolder
    from glmstudio.training.train import train

    folder = WatchedFolder(plan.folder)
    with here.together():
        if not plan.folder.exists():
            raise StudioError("launch-folder", folder=str(plan.folder))
        frozen, run, base = snapshot.load(plan.snapshot), folder.read(), base_of(plan.base)
    with stop_on_interrupt(quiet=True) as should_stop:
        train(
            Resident(base), folder, frozen.train, frozen.dev, run.lora, run.settings,
            should_stop=should_stop, resume=plan.go_on, tokens=frozen.folder,
        )  # fmt: skip


def adopted(args: argparse.Namespace) -> Begun:
    """The run that waits in `--output-dir`, for the page that has begun it. Raises StudioError as `load_base` does."""
    from glmstudio.models.resident import Resident
    from glmstudio.processes import this_process
    from glmstudio.training.runs import RunFolder
    from glmstudio.workspace import Workspace

    folder = RunFolder(args.output_dir)
    run = folder.update(process=this_process())
    frozen = folder.rows(Workspace(args.root).snapshots)
    return Begun(Resident(base_of(run.base)), folder, frozen, go_on=True)


def base_of(facts: "BaseFacts", device: str = "", on_download: Callable[[int, int, str], None] | None = None) -> "Base":
    """The base of a run, on this process's own device where `device`, or without one the run's, is of that kind.

    Raises StudioError as `own_base` does.
    """
    return own_base(
        facts.source, device=device or facts.device, dtype=facts.dtype, quantization=facts.quantization,
        on_download=on_download,
    )  # fmt: skip


def own_base(
    source: str, *, device: str, dtype: str, quantization: str, on_download: Callable[[int, int, str], None] | None
) -> "Base":
    """The base on this process's own device. One that will be cut into parts waits in main memory, where it is whole.

    Raises StudioError `shard-quantized` and as `own_device` and `load_base` do.
    """
    from glmstudio.models.loading import load_base
    from glmstudio.training.ranks import own_device, ranks

    sharded = ranks().sharded
    base = load_base(
        source, device=own_device(device), dtype=dtype, quantization=quantization, in_main_memory=sharded,
        on_download=on_download,
    )  # fmt: skip
    if sharded and base.quantization != "none":
        raise StudioError("shard-quantized", quantization=base.quantization)
    return base


def measuring(resident: "Resident", here: "Ranks") -> "Callable[[LoraSettings, TrainingSettings, int], Probe | None]":
    """What a run costs on this base, as `prepare.Measure`; nobody measures what a part of a base needs."""

    def measure(lora: LoraSettings, settings: TrainingSettings, most: int) -> "Probe | None":
        from glmstudio.training.probe import probe

        if here.sharded:
            raise StudioError("probe-parts", processes=here.count)
        return probe(resident, lora, settings, most=most)

    return measure


def all_processes(settings: TrainingSettings, here: "Ranks") -> int:
    """How many processes train. Raises StudioError `launch-processes` where the settings want others than are here."""
    if settings.num_processes not in (1, here.count):
        raise StudioError("launch-processes", wanted=settings.num_processes, here=here.count)
    return here.count
