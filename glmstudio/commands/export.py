"""The commands `merge`, `export-adapter`, `gguf` and `convert`: what leaves the program. Each is one call below."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import quantities
from glmstudio.commands.rows import read_rows
from glmstudio.errors import StudioError
from glmstudio.settings import DTYPES, EXPORT_FORMS, GGUF_TYPES, PROMPT_STYLES
from glmstudio.terminal import print_finding
from glmstudio.ui.language import LANGUAGES, t

if TYPE_CHECKING:
    from glmstudio.models.exporting.export_result import ExportResult
    from glmstudio.models.exporting.merge_check import MergeCheck

# Rows of a file that the merge is checked on.
CHECKED_ROWS = 3


def add_merge(commands: Any) -> None:
    """Adds `merge` to the parser's commands."""
    words = "merge a LoRA adapter into its base, check it, write the whole model"
    parser = commands.add_parser("merge", help=words)
    parser.add_argument("--base", required=True, help="`embedded`, a model folder or a hub id, in full precision")
    _adapter_flags(parser)
    parser.add_argument(
        "--form", choices=EXPORT_FORMS, default=EXPORT_FORMS[0], help="official: ChatGLM-6B's own names [native]"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="numbers of what is written [the base's]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … [auto]")
    words = f"rows of which the first {CHECKED_ROWS} are the prompts of the check [the run's dev rows]"
    parser.add_argument("--dev-path", type=Path, help=words)
    parser.set_defaults(command=merge_command)


def merge_command(args: argparse.Namespace) -> int:
    from glmstudio.models.exporting.export import export

    rows = read_rows(args.dev_path, "dev")[:CHECKED_ROWS] if args.dev_path else []
    result = export(
        "merged", args.output_dir, base_source=args.base, adapter=args.adapter, form=args.form, dtype=args.dtype,
        device=args.device, prompts=[(row.instruction, row.input) for row in rows], scores=_scores(args.scores),
        language=args.language, on_progress=print_stage,
    )  # fmt: skip
    print_check(result.check)
    print_result(result)
    return 0


def add_export_adapter(commands: Any) -> None:
    """Adds `export-adapter` to the parser's commands."""
    parser = commands.add_parser("export-adapter", help="write an adapter with a README, ready to give away")
    parser.add_argument("--base", help="what it was trained on [what its own files say]")
    _adapter_flags(parser)
    parser.set_defaults(command=export_adapter_command)


def export_adapter_command(args: argparse.Namespace) -> int:
    from glmstudio.models.exporting.export import export

    print_result(
        export(
            "adapter", args.output_dir, base_source=args.base, adapter=args.adapter, scores=_scores(args.scores),
            language=args.language,
        )
    )  # fmt: skip
    return 0


def add_gguf(commands: Any) -> None:
    """Adds `gguf` to the parser's commands."""
    words = "write a model as one GGUF file with an Ollama Modelfile, through llama.cpp's converter"
    parser = commands.add_parser("gguf", help=words)
    parser.add_argument("--model", type=Path, required=True, help="a model folder, for example what `merge` wrote")
    parser.add_argument("--output", type=Path, required=True, help="the .gguf file; Modelfile is written beside it")
    parser.add_argument("--outtype", choices=GGUF_TYPES, default="auto", help="numbers of the file [auto: 16 bits]")
    words = "prompt style of the Modelfile's template [the recorded one]"
    parser.add_argument("--prompt-style", choices=PROMPT_STYLES, help=words)
    parser.set_defaults(command=gguf_command)


def gguf_command(args: argparse.Namespace) -> int:
    from glmstudio.models.exporting.export import to_gguf

    result = to_gguf(args.model, args.output, args.outtype, style=args.prompt_style, on_progress=print_stage)
    print_result(result)
    return 0


def add_convert(commands: Any) -> None:
    """Adds `convert` to the parser's commands."""
    words = "write ChatGLM2, ChatGLM3 or glm-4-9b in its original form as a folder for plain transformers"
    parser = commands.add_parser("convert", help=words)
    parser.add_argument("source", help="a model folder or a hub id, in the original form")
    parser.add_argument("destination", type=Path, help="a folder that is empty or not there yet")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="numbers of what is written [as they are]")
    parser.set_defaults(command=convert_command)


def convert_command(args: argparse.Namespace) -> int:
    from glmstudio.models.converting import convert

    done = convert(
        args.source, args.destination, dtype=args.dtype,
        on_progress=lambda read, total: print_stage(read, total, "convert"),
    )  # fmt: skip
    words = {"tensors": f"{done.tensors:,}", "shards": done.shards, "size": quantities.size(done.bytes)}
    print(t("export.converted", "en", path=args.destination, **words))
    return 0


def _adapter_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", type=Path, required=True, help="for example checkpoints/run-0001/best")
    parser.add_argument("--output-dir", type=Path, required=True, help="a folder that is empty or not there yet")
    parser.add_argument("--scores", type=Path, help="JSON that `evaluate` wrote; its totals go into the README")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the README [en]")


def _scores(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        # The page keeps what `evaluate` gave inside of its own record.
        totals = values.get("scores", values)
        if not isinstance(totals["base"], dict):
            raise TypeError("base is no table of totals")
    except (OSError, ValueError) as error:
        raise StudioError("file-missing", name=str(path), reason=str(error)) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise StudioError("scores-unreadable", file=str(path), reason=str(error)) from error
    return totals


def print_stage(done: int, total: int, stage: str) -> None:
    """One line a stage, written over while it goes on."""
    end = "\n" if done >= total else ""
    print(f"\r{stage} {100 * done // max(total, 1)} %", end=end, file=sys.stderr, flush=True)


def print_check(check: "MergeCheck") -> None:
    print(t("export.check", "en", **check.shown()))
    if not check.carries_adapter:
        print(t("export.check-lost", "en", dtype=check.dtype), file=sys.stderr)


def print_result(result: "ExportResult") -> None:
    if result.doubt is not None:
        print_finding(result.doubt)
    print(t("export.written", "en", path=result.path, size=quantities.size(result.bytes)))
