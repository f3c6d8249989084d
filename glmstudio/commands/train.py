"""The command `train`: a new run, or one that goes on. Knows no model."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import terminal
from glmstudio.commands.config import with_config
from glmstudio.commands.flags import add_settings, base_flags, chosen, root_flag, stop_on_interrupt
from glmstudio.commands.rows import training_rows
from glmstudio.commands.together import Begun, adopted, all_processes, follow, measuring, own_base, tell
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import METHODS, LoraSettings, TrainingSettings, recommended
from glmstudio.training.run_config import USUAL_BASE

if TYPE_CHECKING:
    from glmstudio.training.from_adapter import Start
    from glmstudio.training.ranks import Ranks


def add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a LoRA", description="Trains a LoRA; writes run.json, metrics.")
    base_flags(parser)
    root_flag(parser)
    parser.add_argument("--train-path", type=Path, help="context/target JSONL, Alpaca JSON or JSONL, or CSV")
    parser.add_argument("--dev-path", type=Path, help="rows for the dev loss and the best checkpoint")
    parser.add_argument("--dataset", help="a dataset of the page instead of files")
    words = "run.json, metrics.jsonl, best/, last/ go here [checkpoints/run-NNNN, the next number]"
    parser.add_argument("--output-dir", type=Path, help=words)
    parser.add_argument("--overwrite-output-dir", action="store_true", help="replace the run that is there")
    parser.add_argument("--img-log-dir", type=Path, help="write the loss picture into this folder")
    parser.add_argument("--img-log-name", default="loss", help="file name of the loss picture [loss]")
    words = "a run.yaml that a run has left, or one of your own; flags that are given win"
    parser.add_argument("--config", type=Path, help=words)
    words = "begin with this adapter instead of a fresh one: a folder, or run-0001@best of the runs below --root"
    parser.add_argument("--from-adapter", metavar="ADAPTER", help=words)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output-dir, as it was begun")
    parser.add_argument("--queued", action="store_true", help=argparse.SUPPRESS)
    add_settings(parser, LoraSettings)
    add_settings(parser, TrainingSettings)
    # None tells a flag that was not given, which matters to a run that goes on.
    parser.set_defaults(command=train_command, root=None, snapshot_id="", **dict.fromkeys(USUAL_BASE))


def train_command(args: argparse.Namespace) -> int:
    from glmstudio.training.ranks import launched

    args = with_config(args)
    with launched() as here:
        if not here.first:
            return follow(here)
        begun = None
        try:
            begun = _begun(args, here)
        finally:
            tell(here, begun)
        return 2 if begun is None else _trained(args, begun)


def _trained(args: argparse.Namespace, begun: Begun) -> int:
    from glmstudio.training.picture import write_picture
    from glmstudio.training.train import train

    folder, frozen, run = begun.folder, begun.frozen, begun.folder.read()
    printer = terminal.RunPrinter(folder, every=getattr(args, "logging_steps", None))
    try:
        with stop_on_interrupt() as should_stop:
            run = train(
                begun.resident, folder, frozen.train, frozen.dev, run.lora, run.settings,
                should_stop=should_stop, on_progress=printer, resume=begun.go_on, tokens=frozen.folder,
            )  # fmt: skip
    except StudioError as error:
        terminal.print_error(error)
        return 1
    printer.close(run)
    if args.img_log_dir:
        print(f"loss picture: {write_picture(folder.metrics_path, args.img_log_dir / f'{args.img_log_name}.png')}")
    return 0


def _begun(args: argparse.Namespace, here: "Ranks") -> Begun | None:
    """A new run or one that goes on; None where the check found mistakes, which are told."""
    from glmstudio.commands.resume import reopened

    if args.queued:
        return adopted(args)
    if args.resume:
        return reopened(args, training_rows(args) if args.dataset or args.train_path else None, here)
    return _new(args, here)


def _new(args: argparse.Namespace, here: "Ranks") -> Begun | None:
    from glmstudio.models.devices import dtype_reason
    from glmstudio.models.resident import Resident
    from glmstudio.training.from_adapter import find_adapter, read_start
    from glmstudio.training.prepare import RunWish, prepared_run
    from glmstudio.training.runs import RunFolder
    from glmstudio.workspace import Workspace

    asked = {name: getattr(args, name) or usual for name, usual in USUAL_BASE.items()}
    source, folder = asked["base"], RunFolder(args.output_dir)
    train_rows, dev_rows = training_rows(args)
    base = own_base(
        source, device=asked["device"], dtype=asked["dtype"], quantization=asked["quantization"],
        on_download=terminal.DownloadPrinter(),
    )  # fmt: skip
    folder.refuse_taken(overwrite=args.overwrite_output_dir)
    # From another working folder, too.
    asked |= {"base": base.source} | _data(args)
    start = None
    if args.from_adapter:
        start = read_start(find_adapter(args.from_adapter, Workspace(args.root).checkpoints), base)
        asked["from_adapter"] = str(start.path)
        if folder.path.resolve() in start.path.parents:
            raise StudioError("from-adapter-inside", folder=str(folder.path), adapter=str(start.path))
    lora, settings = _wanted(args, source, start)
    settings = dataclasses.replace(settings, num_processes=all_processes(settings, here))
    wish = RunWish(
        args.dataset or args.train_path.stem, train_rows, dev_rows, lora, settings, asked, start, said=vars(args)
    )
    resident = Resident(base)
    try:
        with prepared_run(
            wish,
            resident,
            args.output_dir / "snapshots",
            measure=measuring(resident, here),
            tell=terminal.print_finding,
            on_stage=terminal.print_stage,
        ) as ready:
            ready.write(folder, overwrite=args.overwrite_output_dir)
    except StudioError as error:
        if error.code != "run-refused":
            raise
        return None
    if args.snapshot_id not in ("", ready.frozen.id):
        terminal.print_finding(Finding("rows-changed", "warning", params={"file": str(args.config)}))
    if ready.plan.estimate is not None:
        numbers = str(base.dtype).removeprefix("torch.")
        terminal.print_estimate(ready.plan.estimate, numbers, dtype_reason(base.dtype, base.device))
    return Begun(resident, folder, ready.frozen, go_on=False)


def _wanted(args: argparse.Namespace, source: str, start: "Start | None") -> tuple[LoraSettings, TrainingSettings]:
    """The settings that were asked for, the rest as it is usual for this base and adapter."""
    method = getattr(args, "method", start.values["method"] if start else METHODS[0])
    lora = chosen(args, LoraSettings(lora_dropout=start.dropout) if start else LoraSettings())
    return lora, chosen(args, recommended(demonstration=source == "embedded", method=method))


def _data(args: argparse.Namespace) -> dict[str, str]:
    """The keys of `run.yaml` that name the rows, good from any folder."""
    if args.dataset:
        return {"root": str(args.root.absolute()), "dataset": args.dataset}
    files = {"train_path": args.train_path, "dev_path": args.dev_path}
    return {name: str(path.absolute()) for name, path in files.items() if path}
