"""Rows from files and datasets: the commands `import`, `imports`, `export` and `rename`, and what others read. Bad
lines are told.

Knows no model.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import terminal
from glmstudio.commands.flags import root_flag
from glmstudio.data import formats
from glmstudio.data.columns import FIELDS
from glmstudio.data.example import SPLITS, Example, Reject
from glmstudio.data.file_places import place_of
from glmstudio.data.reading.reader import ReadOptions, Told, read
from glmstudio.data.reading.texts import CUT_LENGTH, CUTS
from glmstudio.errors import StudioError
from glmstudio.file_names import shown
from glmstudio.ui.language import t
from glmstudio.ui.row_words import kinds_text, known_lines, opening_lines, told_lines, undone_text
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.studio import Studio


def training_rows(args: argparse.Namespace) -> tuple[list[Example], list[Example]]:
    """(train, dev) of `train`'s flags. Raises StudioError `train-path-missing` where they name none."""
    if args.dataset:
        with opened(args.root) as studio:
            studio.require_dataset(args.dataset)
            return studio.training_rows(args.dataset)
    if args.train_path is None:
        raise StudioError("train-path-missing")
    train = read_rows(args.train_path, "train")
    dev = read_rows(args.dev_path, "dev") if args.dev_path else []
    # A file may say of each row which split it is of.
    return [row for row in train if row.split == "train"], [*(row for row in train if row.split == "dev"), *dev]


def read_rows(path: Path, split: str) -> list[Example]:
    """The rows of a file that have an answer. Each bad row is told on stderr with its place and reason, and how many
    were left out for want of an answer."""
    good, rejects, unanswered = [], [], 0
    reading = read(path, dataset=path.stem, split=split)
    for row in reading:
        if isinstance(row, Reject):
            rejects.append(row)
        elif row.status == "done":
            good.append(row)
        else:
            unanswered += 1
    terminal.print_rejects(path, rejects)
    _print_told(reading.told)
    if unanswered:
        print(t("told.drafts", "en", count=f"{unanswered:,}"), file=sys.stderr)
    return good


def _print_told(told: Told) -> None:
    for line in told_lines(told, "en"):
        print(line, file=sys.stderr)


def add_import(commands: Any) -> None:
    parser = commands.add_parser("import", help="bring the rows of files, archives or folders into a dataset")
    root_flag(parser)
    parser.add_argument("paths", type=Path, nargs="+", metavar="path")
    parser.add_argument("--dataset", help="[what the name of the file proposes, with its split]")
    parser.add_argument("--split", choices=SPLITS, help="of rows that do not say theirs [train]")
    words = f"what a column is: one of {', '.join(FIELDS)}, or nothing to leave it out; may be given several times"
    parser.add_argument("--map", action="append", default=[], metavar="COLUMN=FIELD", help=words)
    parser.add_argument("--instruction", default="", help="of rows that have none")
    parser.add_argument("--encoding", default="", help="of lines that are no UTF-8 [found out]")
    words = "of a workbook; may be given several times [the first with known columns]"
    parser.add_argument("--sheet", action="append", default=[], metavar="NAME", help=words)
    words = "make a row of each piece of plain texts: TXT, Markdown, DOCX, a folder of them"
    parser.add_argument("--cut", choices=CUTS, default="", help=words)
    words = f"the most characters of a piece that is cut by length, at the end of a sentence [{CUT_LENGTH}]"
    parser.add_argument("--cut-length", type=int, default=CUT_LENGTH, metavar="CHARACTERS", help=words)
    parser.add_argument("--again", action="store_true", help="import rows, too, that the dataset has already")
    parser.set_defaults(command=import_command)


def import_command(args: argparse.Namespace) -> int:
    """0 where rows of every path came in."""
    sheets, length = tuple(args.sheet), max(args.cut_length, 1)
    options = ReadOptions(args.encoding, columns_of(args.map), args.instruction, sheets, args.cut, length)
    good = []
    with opened(args.root) as studio:
        for path in args.paths:
            try:
                good.append(_import(studio, path, args, options))
            except StudioError as error:
                if len(args.paths) == 1:
                    raise
                terminal.print_error(error)
                good.append(0)
    return 0 if all(good) else 2


def _import(studio: "Studio", path: Path, args: argparse.Namespace, options: ReadOptions) -> int:
    """How many rows came in."""
    dataset, split = place_of(path.name) if args.dataset is None else (args.dataset, SPLITS[0])
    result = studio.import_file(path, dataset, args.split or split, options=options, again=args.again)
    terminal.print_rejects(path, result.rejects)
    for line in known_lines(result.known, "en", command=True):
        print(line, file=sys.stderr)
    _print_told(result.told)
    print(f"{result.good} rows came in, {len(result.rejects)} were rejected ({result.kind})")
    if result.good:
        into = "" if args.dataset else f" -> {dataset}"
        print(f"import {result.import_id}: {kinds_text(result.kinds, 'en')}{into}")
    return result.good


def columns_of(texts: list[str]) -> dict[str, str]:
    """The field of each column that "column=field" names. Raises StudioError `map-unfit`."""
    columns = {}
    for text in texts:
        column, parted, field = text.rpartition("=")
        if not column or not parted or field.strip() not in ("", *FIELDS):
            raise StudioError("map-unfit", text=text, fields=", ".join(FIELDS))
        columns[column.strip()] = field.strip()
    return columns


def add_imports(commands: Any) -> None:
    parser = commands.add_parser("imports", help="list the imports of a workspace, or take one back")
    root_flag(parser)
    parser.add_argument("--undo", type=int, metavar="ID", help="take this one back")
    parser.set_defaults(command=imports_command)


def imports_command(args: argparse.Namespace) -> int:
    with opened(args.root) as studio:
        if args.undo is not None:
            record, stay = studio.undo_import(args.undo)
            print(undone_text(record, stay, "en"))
            return 0
        for record in reversed(studio.imports()):
            who = f" by {record.person}" if record.person else ""
            print(
                f"{record.id}  {record.started_at[:16]}  {shown(record.file)} -> {shown(record.dataset)}  "
                f"{record.rows} rows  {record.state}{who}"
            )
    return 0


def add_rename(commands: Any) -> None:
    parser = commands.add_parser("rename", help="give a dataset another name")
    root_flag(parser)
    parser.add_argument("dataset")
    parser.add_argument("name")
    parser.set_defaults(command=rename_command)


def rename_command(args: argparse.Namespace) -> int:
    with opened(args.root) as studio:
        rows = studio.rename_dataset(args.dataset, args.name)
    print(f"{rows} rows are in {args.name} now")
    return 0


@contextmanager
def opened(root: Path) -> Iterator["Studio"]:
    """A workspace to work in; what was found at its opening is told on stderr."""
    from glmstudio.studio import Studio

    studio = Studio(Workspace(root))
    try:
        for line in opening_lines(studio.remove_broken_imports(), studio.former_database, "en"):
            print(line, file=sys.stderr)
        yield studio
    finally:
        studio.close()


def add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a dataset to a file")
    root_flag(parser)
    parser.add_argument("path", type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", choices=SPLITS, default="")
    words = "[that of the path's ending; of .jsonl context-target]"
    parser.add_argument("--format", choices=formats.KINDS, help=words)
    parser.add_argument("--drafts", action="store_true", help="write the drafts, too, with a column status")
    parser.set_defaults(command=export_command)


def export_command(args: argparse.Namespace) -> int:
    from glmstudio.data.row_reader import Query

    kind = formats.kind_for(args.path, args.format)
    with opened(args.root) as studio:
        studio.require_dataset(args.dataset)
        query = Query(dataset=args.dataset, split=args.split)
        done = studio.export_to(args.path, query, kind, drafts=args.drafts)
    print(f"{done.rows.total()} rows written to {args.path}: {kinds_text(done.rows, 'en')}")
    if done.left:
        print(f"left out: {kinds_text(done.left, 'en')}", file=sys.stderr)
    return 0
