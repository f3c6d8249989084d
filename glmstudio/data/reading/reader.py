"""The one reader of files: a path and what a person says about it, to examples and rejects in the order of the file.

Knows no database and no words.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from glmstudio.data.columns import Columns, RowMaker, found_names
from glmstudio.data.example import Example, Reject
from glmstudio.data.reading.containers import Source, sources_of
from glmstudio.data.reading.csv_rows import csv_rows, find_header, looks_parted
from glmstudio.data.reading.encodings import encoding_of, text_blocks
from glmstudio.data.reading.json_rows import is_json, is_line_a_row, line_rows, value_rows
from glmstudio.data.reading.rows import RawRow, Row
from glmstudio.data.reading.texts import CUT_LENGTH, docx_lines, pieces
from glmstudio.data.reading.workbooks import parquet_rows, xlsx_rows
from glmstudio.errors import StudioError

# So many lines are looked at for the form of a file.
_HEAD_LINES = 50
EXPECTED = "instruction/input/output, context/target, messages"


@dataclass(frozen=True)
class ReadOptions:
    """What a person says about a file. `columns` gives the field of a column, empty for one that is left out;
    `instruction` is that of rows which have none; `sheets` are those of a workbook. With `cut`, one of `CUTS`, files
    are plain texts whose pieces are the inputs of rows; `cut_length` is the most characters of one cut by length."""

    encoding: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    instruction: str = ""
    sheets: tuple[str, ...] = ()
    cut: str = ""
    cut_length: int = CUT_LENGTH


@dataclass(frozen=True)
class Told:
    """What a reading has to say beside its rows, as far as it has come. By column: `ignored` counts the values that an
    example has no place for, `made_text` those that were no text and became it; `left` counts the rows of sheets and
    the values beside lists that were left out. `encodings` are those of the files."""

    ignored: Counter[str] = field(default_factory=Counter)
    made_text: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    encodings: list[str] = field(default_factory=list)


def read(path: Path, *, dataset: str, split: str = "train", options: ReadOptions | None = None) -> "Reading":
    """Examples and rejects in the order of the file; `split` is that of rows that do not say theirs.

    Raises at once what is wrong with the whole file: StudioError `file-empty`, `unknown-format`, `names-unknown`,
    `every-row`, and what `sources_of`, `encoding_of` and the readers of workbooks raise.
    """
    return Reading(Path(path), dataset, split, options or ReadOptions())


class Reading(Iterator[Example | Reject]):
    """The rows of a path. `kind` is the form of the first file; `told` grows as rows are read."""

    def __init__(self, path: Path, dataset: str, split: str, options: ReadOptions) -> None:
        self.kind = ""
        self._name, self._options = path.name, options
        self._maker = RowMaker(dataset, split, Columns(options.columns), options.instruction)
        self.told = Told(self._maker.ignored, self._maker.made_text)
        sources = sources_of(path, texts=bool(options.cut))
        rows = self._source_rows(sources[0]) if len(sources) == 1 else self._all_rows(sources)
        self._rows = self._with_good_rows(rows)

    def __next__(self) -> Example | Reject:
        return next(self._rows)

    def _with_good_rows(self, rows: Iterator[Example | Reject]) -> Iterator[Example | Reject]:
        """The same rows. Raises StudioError where all of them are refused for one reason: it is said once."""
        first: list[Example | Reject] = []
        for row in rows:
            first.append(row)
            if isinstance(row, Example):
                return chain(first, rows)
        codes = {row.code for row in first}
        if codes == {"field-missing"}:
            raise _names_unknown(self._name, str(first[0].params["found"]))
        if len(first) > 1 and len(codes) == 1:
            at = first[0].line or first[0].row
            raise StudioError("every-row", name=self._name, count=len(first), line=at, reject=first[0])
        return iter(first)

    def _all_rows(self, sources: list[Source]) -> Iterator[Example | Reject]:
        """A file that cannot be read at all costs its own rows only, unless all are so."""
        read, problem = 0, None
        for source in sources:
            try:
                yield from (
                    replace(row, file=source.member) if isinstance(row, Reject) else row
                    for row in self._source_rows(source)
                )
                read += 1
            except StudioError as error:
                problem = problem or error
                yield Reject(0, "file-unread", {"error": error}, file=source.member)
        if not read and problem is not None:
            raise problem

    def _source_rows(self, source: Source) -> Iterator[Example | Reject]:
        for row in self._raw_rows(source):
            if isinstance(row, Reject):
                yield row
                continue
            yield self._maker.example(row)

    def _raw_rows(self, source: Source) -> Iterator[Row]:
        knows = self._maker.columns.knows
        if self._options.cut and source.kind in ("text", "docx"):
            yield from self._pieces(source)
        elif source.kind == "docx":
            raise StudioError("text-uncut", name=source.name)
        elif source.kind == "xlsx":
            self._note(source.kind, "")
            with source.open() as file:
                yield from xlsx_rows(file, source.name, knows, self._options.sheets, self.told.left)
        elif source.kind == "parquet":
            self._note(source.kind, "")
            with source.open() as file:
                yield from parquet_rows(file, source.name)
        else:
            yield from self._text_rows(source)

    def _pieces(self, source: Source) -> Iterator[Row]:
        with source.open() as file:
            if source.kind == "docx":
                self._note("texts", "")
                lines = docx_lines(file, source.name)
            else:
                encoding = encoding_of(source.open, source.name, self._options.encoding)
                self._maker.encoding = encoding.shown
                self._note("texts", encoding.shown)
                lines = _lines(text_blocks(file, encoding))
            row = 0
            for row, (line, text) in enumerate(pieces(lines, self._options.cut, self._options.cut_length), start=1):
                yield RawRow(line, row, (("input", text),))
            if not row:
                raise StudioError("file-empty", name=source.name)

    def _text_rows(self, source: Source) -> Iterator[Row]:
        knows = self._maker.columns.knows
        encoding = encoding_of(source.open, source.name, self._options.encoding)
        self._maker.encoding = encoding.shown
        with source.open() as file:
            blocks = _from_text(text_blocks(file, encoding))
            if not (first := next(blocks, "")):
                raise StudioError("file-empty", name=source.name)
            head = first.split("\n", _HEAD_LINES)[:_HEAD_LINES]
            blocks = chain([first], blocks)
            if is_json(head, first):
                by_line = is_line_a_row(head, knows)
                is_list = first.lstrip(" \t\r\n\ufeff").startswith("[")
                self._note("alpaca-json" if is_list else "alpaca-jsonl", encoding.shown)
                if by_line:
                    yield from self._with_kind(line_rows(_lines(blocks), knows, encoding.shown))
                else:
                    yield from self._with_kind(value_rows(blocks, knows, left=self.told.left))
            elif header := find_header(head, knows):
                self._note("csv", encoding.shown)
                yield from csv_rows(_lines(blocks), *header)
            else:
                if found := looks_parted(head):
                    raise _names_unknown(source.name, found_names(found))
                if source.name.lower().endswith((".txt", ".md", ".markdown")):
                    raise StudioError("text-uncut", name=source.name)
                raise StudioError("unknown-format", name=source.name, expected=EXPECTED)

    def _with_kind(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The form is known by the names of the first row."""
        for row in rows:
            if isinstance(row, RawRow):
                fields = self._maker.columns.fields(tuple(name for name, _ in row.cells))
                if "turns" in fields:
                    self.kind = "conversations"
                elif self.kind == "alpaca-jsonl" and "context" in fields and "instruction" not in fields:
                    self.kind = "context-target"
                yield row
                break
            yield row
        yield from rows

    def _note(self, kind: str, encoding: str) -> None:
        self.kind = self.kind or kind
        if encoding and encoding not in self.told.encodings:
            self.told.encodings.append(encoding)


def _names_unknown(name: str, found: str) -> StudioError:
    return StudioError("names-unknown", name=name, found=found, first=found.split(", ")[0], expected=EXPECTED)


def _from_text(blocks: Iterator[str]) -> Iterator[str]:
    """Without blank blocks before the first that is none: it is looked at."""
    blank = ""
    for block in blocks:
        if block.strip():
            yield blank + block
            yield from blocks
            return
        blank += block


def _lines(blocks: Iterable[str]) -> Iterator[str]:
    """Whole lines, with their ends."""
    rest: list[str] = []
    for block in blocks:
        rest.append(block)
        if not block.endswith("\n"):
            continue
        yield from io.StringIO("".join(rest), newline="\n")
        rest = []
    yield from io.StringIO("".join(rest), newline="\n")
