"""The command line: settings become flags, a command becomes one call below, errors become sentences. Knows no model.

Heavy packages are imported by the command that needs them, so `--help` answers at once.
"""

import argparse
import dataclasses
import itertools
import json
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import terminal
from glmstudio.cli_rows import read_rows, training_rows
from glmstudio.data import formats, snapshot
from glmstudio.data.example import SPLITS
from glmstudio.data.quality import Finding
from glmstudio.environment import prepare
from glmstudio.errors import StudioError
from glmstudio.settings import (
    DTYPES,
    PROMPT_STYLES,
    QUANTIZATIONS,
    GenerationSettings,
    LoraSettings,
    TrainingSettings,
    flag_name,
    recommended,
)
from glmstudio.ui.language import t
from glmstudio.workspace import Workspace, repository_root

if TYPE_CHECKING:
    from glmstudio.models.loading import Base
    from glmstudio.training.runs import AdapterPrompt, RunFolder

# Flags of the project that this one grew from, and names that people type from habit.
ALIASES = {
    "--batch-size": "--per-device-train-batch-size",
    "--save-freq": "--save-steps",
    "--max-source-seq-len": "--max-source-length",
    "--max-target-seq-len": "--max-target-length",
    "--save-dir": "--output-dir",
    "--rank": "--lora-rank",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 done, 1 the run failed, 2 the input is not right, 130 interrupted."""
    prepare()
    parser = build_parser()
    args = parser.parse_args(normalised(sys.argv[1:] if arguments is None else arguments))
    try:
        return args.command(args)
    except StudioError as error:
        terminal.print_error(error)
        return 2


def normalised(arguments: Sequence[str]) -> list[str]:
    """Flags with underscores become flags with hyphens, old names their new ones; values stay as they are."""
    result = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
            name = ALIASES.get(name, name)
        result.append(name + equals + value)
    return result


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glmstudio", description="Annotate, train and compare ChatGLM-family models without the page."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_train, _add_evaluate, _add_compare, _add_import, _add_export, _add_bench):
        add(commands)
    return parser


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag a field; a flag that is not given is absent from the parsed names, so that defaults can come later."""
    kinds = typing.get_type_hints(settings)
    for item in dataclasses.fields(settings):
        options: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS}
        kind = kinds[item.name]
        if kind is bool:
            options["action"] = "store_true"
        elif kind in (int, float, str):
            options |= {"type": kind, "metavar": item.name.rsplit("_", 1)[-1].upper()}
        else:
            options |= {"type": lambda text: tuple(filter(None, text.split(","))), "metavar": "A,B"}
        default = "" if kind is bool else f" [{'auto' if item.default == () else item.default}]"
        words = t(f"setting.{item.name}.help", "en").replace("%", "%%")
        parser.add_argument(flag_name(item.name), help=words + default, **options)


def chosen(args: argparse.Namespace, settings: Any) -> Any:
    """`settings` with the flags that were given."""
    given = {item.name: getattr(args, item.name) for item in dataclasses.fields(settings) if hasattr(args, item.name)}
    return dataclasses.replace(settings, **given)


def _base_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", default="embedded", help="`embedded`, a model folder or a hub id [embedded]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … [auto]")
    parser.add_argument("--dtype", default="auto", choices=DTYPES, help="numbers of the base [auto]")
    words = "load the base's linear layers in 8 or 4 bits [none]"
    parser.add_argument("--quantization", default="none", choices=QUANTIZATIONS, help=words)


def _root_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=repository_root(), help="folder that holds data/ and checkpoints/")


# train


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a LoRA", description="Trains a LoRA; writes run.json, metrics.")
    _base_flags(parser)
    _root_flag(parser)
    parser.add_argument("--train-path", type=Path, help="context/target JSONL, Alpaca JSON or JSONL, or CSV")
    parser.add_argument("--dev-path", type=Path, help="rows for the dev loss and the best checkpoint")
    parser.add_argument("--dataset", help="a dataset of the page instead of files")
    parser.add_argument("--output-dir", type=Path, required=True, help="run.json, metrics.jsonl, best/, last/ go here")
    parser.add_argument("--overwrite-output-dir", action="store_true", help="replace the run that is there")
    parser.add_argument("--img-log-dir", type=Path, help="write the loss picture into this folder")
    parser.add_argument("--img-log-name", default="loss", help="file name of the loss picture [loss]")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output-dir, as it was begun")
    add_settings(parser, LoraSettings)
    add_settings(parser, TrainingSettings)
    # None tells a flag that was not given, which matters to a run that goes on.
    parser.set_defaults(command=train_command, base=None, device=None, dtype=None, quantization=None)


def train_command(args: argparse.Namespace) -> int:
    from glmstudio.cli_resume import reopened
    from glmstudio.models.resident import Resident
    from glmstudio.training.picture import write_picture
    from glmstudio.training.train import train

    if args.resume:
        begun = reopened(args, training_rows(args) if args.dataset or args.train_path else None)
    else:
        begun = _begun(args)
    if begun is None:
        return 2
    base, folder, frozen = begun
    run = folder.read()
    printer = terminal.RunPrinter(folder, every=getattr(args, "logging_steps", None))
    try:
        with stop_on_interrupt() as should_stop:
            run = train(
                Resident(base), folder, frozen.train, frozen.dev, run.lora, run.settings,
                should_stop=should_stop, on_progress=printer, resume=args.resume,
            )  # fmt: skip
    except StudioError as error:
        terminal.print_error(error)
        return 1
    printer.close(run)
    if args.img_log_dir:
        print(f"loss picture: {write_picture(folder.metrics_path, args.img_log_dir / f'{args.img_log_name}.png')}")
    return 0


def _begun(args: argparse.Namespace) -> "tuple[Base, RunFolder, snapshot.Snapshot] | None":
    """(base, folder, frozen rows) of a new run; None where the check found mistakes, which are told."""
    from glmstudio.models.loading import load_base
    from glmstudio.training.check import check
    from glmstudio.training.runs import RunFolder

    source = args.base or "embedded"
    lora = chosen(args, LoraSettings())
    settings = chosen(args, recommended(demonstration=source == "embedded"))
    train_rows, dev_rows = training_rows(args)
    base = load_base(
        source,
        device=args.device or "auto",
        dtype=args.dtype or "auto",
        quantization=args.quantization or "none",
    )
    findings = check(base, train_rows, dev_rows, lora, settings)
    for finding in findings:
        terminal.print_finding(finding)
    if any(finding.severity == "error" for finding in findings):
        return None

    folder = RunFolder(args.output_dir)
    frozen = snapshot.freeze(train_rows, dev_rows, args.output_dir / "snapshots")
    folder.create(
        snapshot_id=frozen.id, dataset=args.dataset or args.train_path.stem, base=base, lora=lora, settings=settings,
        overwrite=args.overwrite_output_dir,
    )  # fmt: skip
    return base, folder, frozen


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives `should_stop`: the first Ctrl+C asks to stop and keep what is there, the second breaks off."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("stopping at the next step and keeping what is there; Ctrl+C again breaks off", file=sys.stderr)

    former = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, former)


# evaluate and compare


def _adapter_flags(parser: argparse.ArgumentParser) -> None:
    _base_flags(parser)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder, for example checkpoints/run-0001/best")
    words = "how the base alone, or an adapter that does not say how it was trained, is asked [instruction]"
    parser.add_argument("--prompt-style", choices=PROMPT_STYLES, help=words)
    add_settings(parser, GenerationSettings)


def _loaded(args: argparse.Namespace) -> tuple[Any, list[str], "AdapterPrompt"]:
    """(resident base, names of the rows to ask, how to ask them)."""
    from glmstudio.models.loading import load_base
    from glmstudio.models.resident import BASE_NAME, Resident

    resident = Resident(load_base(args.base, device=args.device, dtype=args.dtype, quantization=args.quantization))
    if args.adapter is None:
        return resident, [BASE_NAME], _prompt(args)
    resident.load("tuned", args.adapter)
    return resident, [BASE_NAME, "tuned"], _prompt(args)


def _prompt(args: argparse.Namespace) -> "AdapterPrompt":
    """As the adapter's record says, which a flag that contradicts it does not change: it is told instead."""
    from glmstudio.training.runs import AdapterPrompt, adapter_prompt

    prompt = adapter_prompt(args.adapter) if args.adapter else AdapterPrompt()
    wish = args.prompt_style or prompt.style
    if not prompt.recorded:
        return dataclasses.replace(prompt, style=wish)
    if wish != prompt.style:
        params = {"adapter": str(args.adapter), "style": prompt.style, "wish": wish}
        terminal.print_finding(Finding("prompt-style-recorded", "warning", params=params))
    return prompt


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="score base and adapter on dev rows")
    _adapter_flags(parser)
    parser.add_argument("--dev-path", type=Path, required=True, help="rows with targets")
    parser.add_argument("--output", type=Path, required=True, help="JSON: totals of base and tuned, every answer")
    parser.set_defaults(command=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    from glmstudio.evaluation.evaluate import evaluate

    rows = read_rows(args.dev_path, "dev")
    if not rows:
        raise StudioError("rows-missing", path=str(args.dev_path))
    resident, names, prompt = _loaded(args)
    with stop_on_interrupt() as should_stop:
        result = evaluate(
            resident, names, rows, chosen(args, GenerationSettings()),
            max_source_length=prompt.max_source_length, style=prompt.style,
            on_progress=terminal.print_count, should_stop=should_stop,
        )  # fmt: skip
    terminal.print_scores(result)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(f"answers and totals: {args.output}")
    return 0


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="ask base and adapter one question, side by side")
    _adapter_flags(parser)
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--input", default="")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=compare_command)


def compare_command(args: argparse.Namespace) -> int:
    from glmstudio.inference.compare import compare

    resident, names, prompt = _loaded(args)
    settings = chosen(args, GenerationSettings())
    with stop_on_interrupt() as should_stop:
        *_, last = compare(
            resident, names, args.instruction, args.input, settings,
            max_source_length=prompt.max_source_length, style=prompt.style, should_stop=should_stop,
        )  # fmt: skip
    if args.json:
        asked = {"instruction": args.instruction, "input": args.input}
        answers = dict(itertools.zip_longest(("base", "tuned"), (row.text for row in last.rows)))
        details = {"rows": [dataclasses.asdict(row) for row in last.rows]}
        print(json.dumps(asked | answers | details, ensure_ascii=False))
    else:
        terminal.print_comparison(last)
    return 0


# import, export and bench


def _add_import(commands: Any) -> None:
    parser = commands.add_parser("import", help="bring a file's rows into a dataset")
    _root_flag(parser)
    parser.add_argument("path", type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.set_defaults(command=import_command)


def import_command(args: argparse.Namespace) -> int:
    from glmstudio.studio import Studio

    studio = Studio(Workspace(args.root))
    try:
        result = studio.import_file(args.path, args.dataset, args.split)
    finally:
        studio.close()
    for reject in result.rejects:
        terminal.print_reject(args.path, reject)
    if result.ignored:
        columns = ", ".join(f"{name} ({count:,})" for name, count in result.ignored.items())
        print(t("annotate.ignored", "en", columns=columns), file=sys.stderr)
    print(f"{result.good} rows came in, {len(result.rejects)} were rejected ({result.kind})")
    return 0 if result.good else 2


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a dataset to a file")
    _root_flag(parser)
    parser.add_argument("path", type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", choices=SPLITS, default="")
    parser.add_argument("--format", choices=formats.KINDS, default=formats.KINDS[0])
    parser.set_defaults(command=export_command)


def export_command(args: argparse.Namespace) -> int:
    from glmstudio.data.store import Query
    from glmstudio.studio import Studio

    studio = Studio(Workspace(args.root))
    try:
        rows = studio.store.iterate(Query(dataset=args.dataset, split=args.split))
        count = formats.write(args.path, rows, args.format)
    finally:
        studio.close()
    print(f"{count} rows written to {args.path}")
    return 0


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="time the store at 100,000 rows")
    parser.add_argument("what", choices=("store",))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.set_defaults(command=bench_command)


def bench_command(args: argparse.Namespace) -> int:
    from glmstudio.data.bench import bench_store

    print(json.dumps(bench_store(args.rows), ensure_ascii=False, indent=2))
    return 0
