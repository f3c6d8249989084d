"""Rows from files and datasets: the commands `import` and `export`, and what others read. Bad lines are told.

Knows no model.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from glmstudio import terminal
from glmstudio.commands.flags import root_flag
from glmstudio.data import formats
from glmstudio.data.example import SPLITS, Example, Reject
from glmstudio.errors import StudioError
from glmstudio.ui.language import t
from glmstudio.workspace import Workspace


def training_rows(args: argparse.Namespace) -> tuple[list[Example], list[Example]]:
    """(train, dev) of `train`'s flags. Raises StudioError `train-path-missing` where they name none."""
    if args.dataset:
        from glmstudio.studio import Studio

        studio = Studio(Workspace(args.root))
        try:
            return studio.training_rows(args.dataset)
        finally:
            studio.close()
    if args.train_path is None:
        raise StudioError("train-path-missing")
    return read_rows(args.train_path, "train"), read_rows(args.dev_path, "dev") if args.dev_path else []


def read_rows(path: Path, split: str) -> list[Example]:
    """The good rows of a file; each bad line is told on stderr with its number and reason."""
    good = []
    for row in formats.read(path, dataset=path.stem, split=split):
        if isinstance(row, Reject):
            terminal.print_reject(path, row)
        else:
            good.append(row)
    return good


def add_import(commands: Any) -> None:
    parser = commands.add_parser("import", help="bring a file's rows into a dataset")
    root_flag(parser)
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


def add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a dataset to a file")
    root_flag(parser)
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
