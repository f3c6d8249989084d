"""Rows of Excel workbooks and Parquet files. Knows not what the names mean."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, BinaryIO

from glmstudio.data.reading.csv_rows import named
from glmstudio.data.reading.rows import RawRow
from glmstudio.errors import StudioError

_HEAD_ROWS = 20
_BATCH_ROWS = 1000
IsField = Callable[[str], bool]


def xlsx_rows(
    file: BinaryIO, name: str, is_field: IsField, sheets: Sequence[str], left: Counter[str]
) -> Iterator[RawRow]:
    """The rows of the named sheets, else of the first one that has a row of known names; `left` names the sheets that
    are left out, with their rows. `line` is the row's number in its sheet.

    Raises StudioError `sheet-missing`, `sheets-unknown` where no sheet has known names, `workbook-broken`.
    """
    from openpyxl import load_workbook

    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever its parts raise.
        raise StudioError("workbook-broken", name=name, reason=str(error)) from error
    with closing(book):
        if missing := [sheet for sheet in sheets if sheet not in book.sheetnames]:
            raise StudioError("sheet-missing", name=name, sheet=missing[0], found=", ".join(book.sheetnames))
        chosen, first_rows = [], []
        for sheet in book.worksheets:
            header = _header(sheet, is_field)
            if sheet.title in sheets or (not sheets and header is not None and not chosen):
                chosen.append((sheet, header))
            elif rows := (sheet.max_row or 0):
                left[sheet.title] += rows
            first_rows.append(f"{sheet.title} ({_first_row(sheet)})")
        if not chosen or any(header is None for _, header in chosen):
            raise StudioError("sheets-unknown", name=name, found="; ".join(first_rows))
        row = 0
        for sheet, (header, names) in chosen:
            for line, cells in enumerate(sheet.iter_rows(min_row=header + 1, values_only=True), start=header + 1):
                if any(cell not in (None, "") for cell in cells):
                    row += 1
                    yield RawRow(line, row, list(zip(names, cells, strict=False)))


def _header(sheet: Any, is_field: IsField) -> tuple[int, list[str]] | None:
    """(1-based row, the names) of the first row that is neither blank nor a title, where it has a known name."""
    for line, cells in enumerate(sheet.iter_rows(max_row=_HEAD_ROWS, values_only=True), start=1):
        names = ["" if cell is None else str(cell).strip() for cell in cells]
        if any(map(is_field, names)):
            return line, named(names)
        if sum(map(bool, names)) > 1:
            return None
    return None


def _first_row(sheet: Any) -> str:
    cells = next(sheet.iter_rows(max_row=1, values_only=True), ())
    return ", ".join(str(cell) for cell in cells if cell is not None)


def parquet_rows(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Raises StudioError `parquet-broken`."""
    import pyarrow
    from pyarrow import parquet

    try:
        row = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
            names = batch.schema.names
            columns = [column.to_pylist() for column in batch.columns]
            for cells in zip(*columns, strict=True):
                row += 1
                yield RawRow(0, row, list(zip(names, cells, strict=True)))
    except pyarrow.ArrowException as error:
        raise StudioError("parquet-broken", name=name, reason=str(error)) from error
