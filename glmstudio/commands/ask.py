"""The commands `evaluate` and `compare`: base and adapter answer rows, or one question. Knows no model."""

import argparse
import dataclasses
import itertools
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import terminal
from glmstudio.commands.flags import add_settings, base_flags, chosen, stop_on_interrupt
from glmstudio.commands.rows import read_rows
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import PROMPT_STYLES, GenerationSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glmstudio.models.adapters.adapter_ref import AdapterRef
    from glmstudio.models.adapters.adapter_version import AdapterPrompt
    from glmstudio.models.resident import Resident


def _adapter_flags(parser: argparse.ArgumentParser) -> None:
    base_flags(parser)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder, for example checkpoints/run-0001/best")
    words = "how the base alone, or an adapter that does not say how it was trained, is asked [instruction]"
    parser.add_argument("--prompt-style", choices=PROMPT_STYLES, help=words)
    add_settings(parser, GenerationSettings)


@contextmanager
def _asked(args: argparse.Namespace) -> "Iterator[tuple[Resident, list[str], AdapterPrompt, AdapterRef | None]]":
    """(resident base, names of the rows to ask, how to ask them, which content of the adapter it is)."""
    from glmstudio.models.adapters.adapter_base import base_doubt
    from glmstudio.models.adapters.adapter_ref import AdapterRef
    from glmstudio.models.adapters.adapter_version import AdapterPrompt
    from glmstudio.models.devices import slow_numbers
    from glmstudio.models.loading import load_base
    from glmstudio.models.resident import BASE_NAME, Resident

    base = load_base(
        args.base, device=args.device, dtype=args.dtype, quantization=args.quantization,
        on_download=terminal.DownloadPrinter(),
    )  # fmt: skip
    if slow := slow_numbers(base.dtype, base.device):
        terminal.print_finding(slow)
    resident = Resident(base)
    if args.adapter is None:
        yield resident, [BASE_NAME], _prompt(args, AdapterPrompt()), None
        return
    with resident.holding(args.adapter) as version:
        if doubt := base_doubt(args.adapter, base.source, base.fingerprint):
            terminal.print_finding(doubt)
        path = args.adapter.resolve()
        ref = AdapterRef(path.parent.name, path.name, version.digest, version.step)
        yield resident, [BASE_NAME, version.digest], _prompt(args, version.prompt), ref


def _prompt(args: argparse.Namespace, prompt: "AdapterPrompt") -> "AdapterPrompt":
    """As the adapter's record says, which a flag that contradicts it does not change: it is told instead."""
    wish = args.prompt_style or prompt.style
    if not prompt.recorded:
        return dataclasses.replace(prompt, style=wish)
    if wish != prompt.style:
        params = {"adapter": str(args.adapter), "style": prompt.style, "wish": wish}
        terminal.print_finding(Finding("prompt-style-recorded", "warning", params=params))
    return prompt


def add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="score base and adapter on dev rows")
    _adapter_flags(parser)
    parser.add_argument("--dev-path", type=Path, required=True, help="rows with targets")
    parser.add_argument("--output", type=Path, required=True, help="JSON: totals of base and tuned, every answer")
    parser.set_defaults(command=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    from glmstudio.evaluation.evaluate import answered_by, evaluate

    rows = read_rows(args.dev_path, "dev")
    if not rows:
        raise StudioError("rows-missing", path=str(args.dev_path))
    with _asked(args) as (resident, names, prompt, ref), stop_on_interrupt() as should_stop:
        settings = prompt.answered(chosen(args, GenerationSettings()))
        result = evaluate(
            resident, names, rows, settings, max_source_length=prompt.max_source_length, style=prompt.style,
            on_progress=terminal.print_count, should_stop=should_stop,
        )  # fmt: skip
        result |= {"answered_by": answered_by(resident.base, prompt, ref), "settings": dataclasses.asdict(settings)}
    terminal.print_scores(result)
    output = args.output
    if result["cancelled"] and output.exists():
        # What is there may be of all rows.
        output = output.with_name(f"{output.stem}-{len(result['rows'])}-of-{result['total']}{output.suffix}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(f"answers and totals: {output}")
    return 0


def add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="ask base and adapter one question, side by side")
    _adapter_flags(parser)
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--input", default="")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=compare_command)


def compare_command(args: argparse.Namespace) -> int:
    from glmstudio.inference.compare import compare

    with _asked(args) as (resident, names, prompt, ref), stop_on_interrupt() as should_stop:
        settings = prompt.answered(chosen(args, GenerationSettings()))
        *_, last = compare(
            resident, names, args.instruction, args.input, settings,
            max_source_length=prompt.max_source_length, style=prompt.style, should_stop=should_stop,
        )  # fmt: skip
        last = dataclasses.replace(last, adapter=ref)
    if args.json:
        asked = {"instruction": args.instruction, "input": args.input}
        answers = dict(itertools.zip_longest(("base", "tuned"), (row.text for row in last.rows)))
        details = {"rows": [dataclasses.asdict(row) for row in last.rows]}
        if last.adapter is not None:
            details |= {"digest": last.adapter.digest, "step": last.adapter.step}
        print(json.dumps(asked | answers | details, ensure_ascii=False))
    else:
        terminal.print_comparison(last)
    return 0
