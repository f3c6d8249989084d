"""`train --resume`: everything is read from the run's folder; flags that say otherwise are refused by name."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glmstudio import terminal
from glmstudio.commands.together import Begun, base_of
from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import flag_name
from glmstudio.training.resume import last_sitting, reopen
from glmstudio.training.runs import Run, RunFolder
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.training.ranks import Ranks


def reopened(
    args: argparse.Namespace, rows: tuple[Sequence[Example], Sequence[Example]] | None, here: "Ranks"
) -> Begun:
    """The run in `--output-dir`, ready to go on. `rows` are (train, dev) where files or a dataset were named.

    Raises StudioError `resume-contradicts`, `launch-processes` and those of `reopen`, `load_base` and `snapshot`.
    """
    folder = RunFolder(args.output_dir)
    run = last_sitting(folder)
    if flags := contradictions(args, run, rows):
        raise StudioError("resume-contradicts", flags=", ".join(flags))
    if run.settings.num_processes != here.count:
        raise StudioError("launch-processes", wanted=run.settings.num_processes, here=here.count)
    frozen = folder.rows(Workspace(args.root).snapshots)
    base = base_of(run.base, args.device, terminal.DownloadPrinter())
    reopen(folder, base)
    return Begun(base, folder, frozen, go_on=True)


def contradictions(
    args: argparse.Namespace, run: Run, rows: tuple[Sequence[Example], Sequence[Example]] | None
) -> list[str]:
    """The flags whose values are not those of the run. The device may be another one."""
    from glmstudio.models.devices import DTYPES

    found = [
        flag_name(item.name)
        for settings in (run.lora, run.settings)
        for item in dataclasses.fields(settings)
        if getattr(args, item.name, value := getattr(settings, item.name)) != value
    ]
    if args.base not in (None, run.base.source):
        found.append("--base")
    if args.dtype not in (None, "auto") and str(DTYPES[args.dtype]) != f"torch.{run.base.dtype}":
        found.append("--dtype")
    if args.quantization not in (None, run.base.quantization):
        found.append("--quantization")
    if rows is not None and snapshot.identity(*rows) != run.snapshot_id:
        named = {"--dataset": args.dataset, "--train-path": args.train_path, "--dev-path": args.dev_path}
        found += [flag for flag, value in named.items() if value]
    return found + (["--overwrite-output-dir"] if args.overwrite_output_dir else [])
