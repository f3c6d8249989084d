"""`train --config`: the values of a `run.yaml` where no flag is given, and what both leave open. Knows no model."""

import argparse
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.training.run_config import from_yaml
from glmstudio.training.runs import new_run_id
from glmstudio.workspace import Workspace, repository_root

_PATHS = ("root", "train_path", "dev_path", "output_dir")


def with_config(args: argparse.Namespace) -> argparse.Namespace:
    """The flags, then the file, then what is usual. Raises StudioError of `from_yaml` and `output-dir-missing`."""
    filled = vars(args) | {name: value for name, value in _values(args).items() if vars(args).get(name) in (None, "")}
    filled["root"] = filled["root"] or repository_root()
    if filled["output_dir"] is None:
        if args.resume:
            raise StudioError("output-dir-missing")
        checkpoints = Workspace(filled["root"]).checkpoints
        filled["output_dir"] = checkpoints / new_run_id(checkpoints)
    return argparse.Namespace(**filled)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    values = from_yaml(args.config) if args.config else {}
    # Rows that a flag names take the place of those of the file; dev rows alone belong to its train rows.
    if args.dataset:
        named = ("train_path", "dev_path", "snapshot_id")
    elif args.train_path:
        named = ("dataset", "snapshot_id") if args.dev_path else ("dataset", "dev_path", "snapshot_id")
    else:
        named = ("snapshot_id",) if args.dev_path else ()
    return {
        name: Path(value).expanduser() if name in _PATHS else value
        for name, value in values.items()
        if name not in named
    }
