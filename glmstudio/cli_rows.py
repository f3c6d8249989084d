"""The rows that a command names, from files or from a dataset of the page; bad lines are told. Knows no model."""

import argparse
from pathlib import Path

from glmstudio import terminal
from glmstudio.data import formats
from glmstudio.data.example import Example, Reject
from glmstudio.errors import StudioError
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
