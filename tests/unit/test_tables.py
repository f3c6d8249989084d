"""Tables and packed files: CSV as people have it, workbooks, Parquet, archives, folders."""

import gzip
import io
import zipfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from glmstudio.data.example import Example, Reject
from glmstudio.data.reading import containers, csv_rows
from tests.unit.file_cases import error_of, good, opened, put, read, rejects

CSV = "instruction,input,output\n抽取,文,答\n"
ROW = ("抽取", "文", "答")


def test_a_csv_reports_bad_rows_by_their_first_line(tmp_path: Path) -> None:
    text = (
        "instruction,input,output,\r\n"
        'a,"two\r\nlines",b\r\n'
        "too,many,values,here\r\n"
        ",,,\r\n"
        "\r\n"
        "short\r\n"
        'c,"x" y,d\r\n'
        'e,"never closed,f\r\n'
        "g,h,i,,\r\n"
        'j,k,"say ""l"""\r\n'
        ",,o\r\n"
    )
    rows = read(put(tmp_path / "a.csv", text))
    assert good(rows) == [("a", "two\r\nlines", "b"), ("short", "", ""), ("g", "h", "i"), ("j", "k", 'say "l"')]
    assert [(row.line, row.row, row.code, row.params) for row in rows if isinstance(row, Reject)] == [
        (4, 2, "csv-columns", {"expected": 3, "found": 4}),
        (8, 4, "csv-syntax", {}),
        (9, 5, "csv-syntax", {}),
        (12, 8, "prompt-empty", {}),
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "，"])
def test_other_delimiters_and_long_texts(tmp_path: Path, delimiter: str) -> None:
    long = "长" * 200_000
    path = put(tmp_path / "a.csv", delimiter.join(["input", "output"]) + "\n" + delimiter.join([long, "a.b"]) + "\n")
    assert good(read(path)) == [("", long, "a.b")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"instruction" , "input","output"\na,b,c\n1,2\n', 2),
        ("\n \n\ninstruction,input,output\na,b,c\n1,2\n", 5),
        ("标注表\n,,\ninstruction,input,output\na,b,c\n1,2\n", 4),
        ("导出于 2024 年,,\ninstruction,input,output\na,b,c\n1,2\n", 3),
        ("sep=;\ninstruction;input;output\na;b;c\n1;2\n", 3),
        ('\ufeff"sep=;"\r\ninstruction;input;output\r\na;b;c\r\n1;2\r\n', 3),
        ("instruction,input,output\ra,b,c\r1,2\r", 2),
        ("\ufeffinstruction,input,output\na,b,c\n\ufeffinstruction,input,output\n1,2\n", 2),
        ("Instruction,INPUT,output,,\na,b,c\n1,2,,,\n", 2),
    ],
)
def test_a_table_begins_where_its_names_are(tmp_path: Path, text: str, line: int) -> None:
    path = put(tmp_path / "a.csv", text)
    assert good(read(path)) == [("a", "b", "c"), ("1", "2", "")]
    header = text.lstrip("\ufeff").replace("a,b,c", "a,b,c,d,e,f").replace("a;b;c", "a;b;c;d;e;f")
    assert rejects(read(put(path, header))) == [(line, "csv-columns")]


def test_names_are_not_looked_for_among_the_rows(tmp_path: Path) -> None:
    error = error_of(lambda: opened(put(tmp_path / "a.csv", "name,age\ntext,3\n")))
    assert (error.code, error.params["found"]) == ("names-unknown", "name, age")


def test_columns_without_a_name_are_told_by_their_number(tmp_path: Path) -> None:
    reading = opened(put(tmp_path / "a.csv", ",input,,output\n0,a,,b\n1,c,x,d\n"))
    assert good(list(reading)) == [("", "a", "b"), ("", "c", "d")]
    assert reading.told.ignored == {"#1": 2, "#3": 1}
    reading = opened(workbook(tmp_path / "a.xlsx", {"a": [[None, "input"], [7, "a"]]}))
    assert good(list(reading)) == [("", "a", "")]
    assert reading.told.ignored == {"#1": 1}


def test_a_quote_that_is_never_closed_does_not_take_the_file_in(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(csv_rows, "_MOST_LINES", 20)
    lines = ["input,output", 'a,"b', *(f"{number},x" for number in range(200)), '"two\nlines",y']
    rows = read(put(tmp_path / "a.csv", "\n".join(lines)))
    assert rejects(rows) == [(2, "csv-syntax")]
    assert [row.input for row in rows if isinstance(row, Example)] == [*map(str, range(200)), "two\nlines"]


def test_dates_and_numbers_of_a_workbook_become_texts(tmp_path: Path) -> None:
    row = ["i", datetime(2024, 1, 2), datetime(2024, 1, 2, 3, 4)]
    rows = read(workbook(tmp_path / "a.xlsx", {"a": [["instruction", "input", "output"], row, ["i", 1, 2.5]]}))
    assert good(rows) == [("i", "2024-01-02", "2024-01-02T03:04:00"), ("i", "1", "2.5")]


def workbook(path: Path, sheets: dict[str, list[list]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read_from_its_sheet_of_known_columns(tmp_path: Path) -> None:
    head = ["instruction", "input", "output"]
    path = workbook(
        tmp_path / "a.xlsx",
        {
            "说明": [["怎么标注"], ["看清楚"]],
            "一": [["标注表"], [], head, ["抽取", "文", "答"], [], ["计", 3, True], ["i", "x", None]],
            "二": [head, ["第二", "张", "表"]],
        },
    )
    reading = opened(path)
    assert good(list(reading)) == [ROW, ("计", "3", "true"), ("i", "x", "")]
    assert (reading.kind, reading.told.left) == ("xlsx", {"说明": 2, "二": 2})
    assert reading.told.made_text == {"input": 1, "output": 1}
    assert good(read(path, sheets=("二",))) == [("第二", "张", "表")]
    assert len(good(read(path, sheets=("一", "二")))) == 4
    error = error_of(lambda: opened(path, sheets=("三",)))
    assert (error.code, error.params["found"]) == ("sheet-missing", "说明, 一, 二")
    error = error_of(lambda: opened(path, sheets=("说明",)))
    assert (error.code, "怎么标注" in error.params["found"]) == ("sheets-unknown", True)


def test_parquet_holds_texts_and_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "一"}, {"role": "assistant", "content": "甲"}]
    table = pyarrow.table({"messages": [turns, None], "prompt": [None, "i"], "n": [1, None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet")
    assert good(rows) == [("一", "", "甲")]
    assert [(row.line, row.row, row.code) for row in rows if isinstance(row, Reject)] == [(0, 2, "prompt-empty")]
    parquet.write_table(pyarrow.table({"question": ["i"] * 3, "answer": [1, None, 2]}), tmp_path / "b.parquet")
    assert good(read(tmp_path / "b.parquet")) == [("i", "", "1"), ("i", "", ""), ("i", "", "2")]


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_packed_files_and_folders_are_read(tmp_path: Path) -> None:
    content, folder = CSV.encode("gb18030"), tmp_path / "folder"
    assert good(read(put(tmp_path / "a.csv.gz", gzip.compress(content)))) == [ROW]
    assert good(read(put(tmp_path / "no-ending", gzip.compress(content)))) == [ROW]
    book = workbook(tmp_path / "a.xlsx", {"a": [["问题"], ["好吗"]]}).read_bytes()
    table = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["x"]}), table)
    files = {
        "a.csv": content,
        "b/c.jsonl.gz": gzip.compress(b'{"instruction": "b", "output": "c"}\n{"output": "c"}'),
        "d.xlsx": book,
        "e.parquet": table.getvalue(),
        "f.json": b"{",
        "README.md": b"# no rows",
        "__MACOSX/a.csv": b"x",
        ".hidden.csv": content,
    }
    expected = [ROW, ("b", "", "c"), ("好吗", "", ""), ("", "x", "")]
    for name, member in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, member)
    for path in (packed(tmp_path / "a.zip", files), folder):
        rows = read(path)
        assert good(rows) == expected
        bad = [(row.file, row.line, row.code) for row in rows if isinstance(row, Reject)]
        assert bad == [("b/c.jsonl.gz", 2, "field-missing"), ("f.json", 1, "json-cut")]


def test_a_file_that_cannot_be_read_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.csv": CSV.encode(), "b.csv": b"frage,antwort\na,b\n", "c.jsonl": b""})
    rows = read(path)
    assert good(rows) == [ROW]
    assert [(row.file, row.params["error"].code) for row in rows if isinstance(row, Reject)] == [
        ("b.csv", "names-unknown"),
        ("c.jsonl", "file-empty"),
    ]
    path = packed(tmp_path / "a.zip", {"b.csv": b"frage,antwort\na,b\n", "c.jsonl": b""})
    assert error_of(lambda: opened(path)).code == "names-unknown"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.jsonl", b" \n\n", "file-empty"),
        ("a.json", b"[1, 2]", "unknown-format"),
        ("a.text", "写给编辑的一封信".encode(), "unknown-format"),
        ("a.xlsx", b"PK\x03\x04\x00\x00\xff\xfe\x00", "unpacking-failed"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "file-kind-unread"),
        ("a.tar.gz", gzip.compress(b"a.jsonl".ljust(257, b"\0") + b"ustar" + b"\0" * 250, mtime=0), "file-kind-unread"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00", "file-kind-unread"),
        ("a.jsonl.gz", gzip.compress(CSV.encode() * 1000, mtime=0)[:-20], "unpacking-failed"),
        ("a.parquet", b"PAR1" + b"x" * 40, "parquet-broken"),
    ],
)
def test_a_file_that_is_no_data_is_refused_by_name(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    error = error_of(lambda: read(put(tmp_path / name, content)))
    assert (error.code, error.params["name"]) == (code, name)


def test_archives_and_folders_without_rows_are_told(tmp_path: Path) -> None:
    assert error_of(lambda: opened(packed(tmp_path / "a.zip", {"a.png": b""}))).code == "archive-empty"
    (tmp_path / "empty").mkdir()
    assert error_of(lambda: opened(tmp_path / "empty")).code == "folder-empty"
    assert error_of(lambda: opened(tmp_path / "gone.jsonl")).code == "file-missing"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        info = zipfile.ZipInfo("a.csv")
        archive.writestr(info, CSV)
        archive.filelist[0].flag_bits |= 1
    assert error_of(lambda: opened(tmp_path / "b.zip")).code == "archive-encrypted"


def test_what_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST_UNPACKED", 100_000)
    row = b'{"instruction": "' + b"0" * 1000 + b'", "output": "b"}\n'
    for path in (
        put(tmp_path / "a.jsonl.gz", gzip.compress(row * 1000)),
        packed(tmp_path / "a.zip", {"a.jsonl": row * 1000}),
        packed(tmp_path / "b.zip", {"a.jsonl.gz": gzip.compress(row * 1000)}),
    ):
        assert error_of(lambda path=path: read(path)).code == "unpacked-too-large"
    monkeypatch.setattr(containers, "MOST_IN_MEMORY", 5000)
    book = workbook(tmp_path / "a.xlsx", {"a": [["input"], *[["x" * 1000]] * 50]})
    assert error_of(lambda: read(book)).code == "unpacked-too-large"
    path = packed(tmp_path / "c.zip", {"a.xlsx": book.read_bytes(), "b.csv": CSV.encode()})
    (bad,) = (row for row in read(path) if isinstance(row, Reject))
    assert bad.params["error"].code == "unpacked-too-large"
    assert all(isinstance(found, Example) for found in read(put(tmp_path / "b.gz", gzip.compress(row * 50))))
