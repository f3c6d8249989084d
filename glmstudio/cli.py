"""The command line: a command becomes one call, errors become sentences. Knows no model.

Heavy packages are imported by the command that needs them, so `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from glmstudio import terminal
from glmstudio.commands.ask import add_compare, add_evaluate
from glmstudio.commands.bench import add_bench
from glmstudio.commands.doctor import add_doctor
from glmstudio.commands.export import add_convert, add_export_adapter, add_gguf, add_merge
from glmstudio.commands.flags import normalised
from glmstudio.commands.preview import add_preview
from glmstudio.commands.rows import add_export, add_import, add_imports, add_rename
from glmstudio.commands.train import add_train
from glmstudio.environment import prepare
from glmstudio.errors import StudioError


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
    except BrokenPipeError:
        # Whoever reads our output has seen enough; nothing must be written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glmstudio", description="Annotate, train and compare ChatGLM-family models without the page."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        add_train, add_evaluate, add_compare, add_import, add_imports, add_export, add_rename, add_preview, add_doctor,
        add_convert, add_merge, add_export_adapter, add_gguf, add_bench,
    ):  # fmt: skip
        add(commands)
    return parser
