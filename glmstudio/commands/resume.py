"""`train --resume`: everything is read from the run's folder; flags that say otherwise are refused by name."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio import terminal
from glmstudio.commands.together import Begun, base_of, measuring
from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import flag_name
from glmstudio.training.resume import begins_anew, last_sitting, refuse_other_base, reopen
from glmstudio.training.runs import BaseFacts, Run, RunFolder
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.training.ranks import Ranks


def reopened(
    args: argparse.Namespace, rows: tuple[Sequence[Example], Sequence[Example]] | None, here: "Ranks"
) -> Begun:
    """The run in `--output-dir`, ready to go on. `rows` are (train, dev) where files or a dataset were named.

    Raises StudioError `resume-contradicts`, `launch-processes`, `run-base-missing` and those of `reopen`,
    `load_base` and `snapshot`.
    """
    from glmstudio.models.resident import Resident
    from glmstudio.training.prepare import choose

    folder = RunFolder(args.output_dir)
    run = last_sitting(folder)
    if flags := contradictions(args, run, rows):
        raise StudioError("resume-contradicts", flags=", ".join(flags))
    if run.settings.num_processes != here.count:
        raise StudioError("launch-processes", wanted=run.settings.num_processes, here=here.count)
    frozen = folder.rows(Workspace(args.root).snapshots)
    base = base_of(_where_now(run, args.base), args.device, terminal.DownloadPrinter())
    anew = begins_anew(folder)
    reopen(folder, base)
    if anew is not None:
        terminal.print_finding(anew)
    resident = Resident(base)
    choose(folder, frozen, resident, measuring(resident, here))
    return Begun(resident, folder, frozen, go_on=True)


def _where_now(run: Run, source: str | None) -> BaseFacts:
    """The run's base where it lies now, `source` where that is given. A look at the files tells whether it is the same.

    Raises StudioError `run-base-missing` and as `refuse_other_base` does.
    """
    from glmstudio.models.fingerprint import fingerprint
    from glmstudio.models.sources import local_folder

    try:
        folder = local_folder(where := source or run.base.source)
    except StudioError as error:
        if source:
            raise
        raise StudioError("run-base-missing", run=run.id, source=run.base.source) from error
    facts = dataclasses.replace(run.base, source=where)
    if folder is not None:
        refuse_other_base(run, dataclasses.replace(facts, fingerprint=fingerprint(folder)))
    return facts


def contradictions(
    args: argparse.Namespace, run: Run, rows: tuple[Sequence[Example], Sequence[Example]] | None
) -> list[str]:
    """The flags whose values are not those of the run. The device may be another one, and the base may lie
    elsewhere."""
    from glmstudio.models.devices import DTYPES

    found = [
        flag_name(item.name)
        for settings in (run.lora, run.settings)
        for item in dataclasses.fields(settings)
        if getattr(args, item.name, value := getattr(settings, item.name)) != value
    ]
    if args.dtype not in (None, "auto") and str(DTYPES[args.dtype]) != f"torch.{run.base.dtype}":
        found.append("--dtype")
    if args.quantization not in (None, run.base.quantization):
        found.append("--quantization")
    if rows is not None and snapshot.identity(*rows) != run.snapshot_id:
        named = {"--dataset": args.dataset, "--train-path": args.train_path, "--dev-path": args.dev_path}
        found += [flag for flag, value in named.items() if value]
    if args.from_adapter and str(Path(args.from_adapter).expanduser().resolve()) != run.from_adapter:
        found.append("--from-adapter")
    return found + (["--overwrite-output-dir"] if args.overwrite_output_dir else [])
