"""Excel workbooks and Parquet files of rows, written a row at a time. Knows no example and no words."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import BinaryIO

from glmstudio.errors import StudioError

# What Excel lets a sheet and a cell hold.
_MOST_ROWS, _MOST_CHARACTERS = 1_048_576, 32_767
_BATCH_ROWS = 1000

Texts = dict[str, str]


def write_xlsx(file: BinaryIO, rows: Iterable[Texts], names: Sequence[str], name: str) -> int:
    """Every cell is a text, whatever it begins with. Raises StudioError `cell-too-long`, `cell-unfit` for a control
    character, `sheet-full`, with the row."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet, written = book.create_sheet(), 0
    sheet.append(list(names))
    try:
        for written, row in enumerate(rows, start=1):
            if written >= _MOST_ROWS:
                raise StudioError("sheet-full", name=name, most=_MOST_ROWS - 1)
            cells = []
            for field, text in row.items():
                if len(text) > _MOST_CHARACTERS:
                    raise StudioError("cell-too-long", name=name, row=written, column=field, most=_MOST_CHARACTERS)
                if ILLEGAL_CHARACTERS_RE.search(text):
                    raise StudioError("cell-unfit", name=name, row=written, column=field)
                cell = WriteOnlyCell(sheet, text)
                cell.data_type = "s"
                cells.append(cell)
            sheet.append(cells)
    except BaseException:
        sheet.close()
        raise
    book.save(file)
    return written


def write_parquet(file: BinaryIO, rows: Iterable[Texts], names: Sequence[str]) -> int:
    import pyarrow
    from pyarrow import parquet

    rows, written = iter(rows), 0
    schema = pyarrow.schema([(name, pyarrow.string()) for name in names])
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
            written += len(batch)
    return written
