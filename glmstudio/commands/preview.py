"""The command `preview`: one row of a file, token by token, as training shows it to a base. Loads no weights."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.commands.rows import read_rows
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import PROMPT_STYLES, TrainingSettings

if TYPE_CHECKING:
    from glmstudio.models.prompts.preview import Preview


def add_preview(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    usual = TrainingSettings()
    parser = commands.add_parser("preview", help="show a row token by token, and which tokens bear loss")
    parser.add_argument("--base", default="embedded", help="`embedded`, a model folder or a hub id [embedded]")
    parser.add_argument("--train-path", type=Path, required=True, help="rows in any form that `train` reads")
    parser.add_argument("--row", type=int, default=1, help="number of the row among the good ones, from 1 [1]")
    parser.add_argument("--prompt-style", choices=PROMPT_STYLES, default=usual.prompt_style)
    parser.add_argument("--max-source-length", type=int, default=usual.max_source_length, metavar="LENGTH")
    parser.add_argument("--max-target-length", type=int, default=usual.max_target_length, metavar="LENGTH")
    parser.set_defaults(command=preview_command)


def preview_command(args: argparse.Namespace) -> int:
    """Prints the table. Raises StudioError `preview-row` for a row that is not there, and what reading and rendering
    raise."""
    from glmstudio.models.checkpoint_files import read_json
    from glmstudio.models.families.table import family_of
    from glmstudio.models.loading import load_tokenizer
    from glmstudio.models.prompts.preview import preview_row
    from glmstudio.models.sources import folder_of

    row = _row(args.train_path, args.row)
    folder = folder_of(args.base)
    tokenizer, family = load_tokenizer(folder), family_of(read_json(folder / "config.json"), args.base)
    settings = TrainingSettings(
        prompt_style=args.prompt_style,
        max_source_length=args.max_source_length,
        max_target_length=args.max_target_length,
    )
    print_preview(preview_row(tokenizer, family, row.instruction, row.input, row.target, settings))
    return 0


def print_preview(preview: "Preview") -> None:
    """A line a token: its place, its id, `loss` where it counts, its text in quotes; a rule where the answer begins
    and where tokens were cut."""
    for place, piece in enumerate(preview.pieces):
        if place in preview.cuts:
            print(f"-- cut: {preview.cuts[place]} tokens")
        if place == preview.prompt_length:
            print("-- answer")
        text = json.dumps(piece.text, ensure_ascii=False)
        print(f"{place:>5} {piece.id:>7} {'loss' if piece.bears_loss else '':4} {text}")
    bearing = sum(piece.bears_loss for piece in preview.pieces)
    print(
        f"{len(preview.pieces)} tokens, {preview.prompt_length} of them prompt, {bearing} bear loss; "
        f"cut: {preview.cut_prompt} of the prompt, {preview.cut_target} of the target"
    )


def _row(path: Path, number: int) -> Example:
    rows = read_rows(path, "train")
    if not 1 <= number <= len(rows):
        raise StudioError("preview-row", path=str(path), rows=len(rows), row=number)
    return rows[number - 1]
