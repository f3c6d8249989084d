"""Files that the program writes: what goes out comes in again, whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data import formats
from glmstudio.data.example import Example, join_context
from glmstudio.data.reading.reader import read as reading_of
from tests.unit.file_cases import error_of, good, opened, put, read, rejects

NASTY = [
    Example("指令", "一句话", '```json\n[{"a": "b"}]\n```'),
    Example("", "only input", "t"),
    Example("only instruction", "", "t"),
    Example("Input: twice", "x\nInput: y\nAnswer: z", "Answer: "),
    Example(" blanks ", "\ttab\r\nand\rreturn\n", " \n"),
    Example("quote \" and, comma; '", "u2028 \u2028 u0085 \x85 ff \x0c", "emoji 😀 \ufeff"),
    Example("=SUM(A1)", "-1", "@x"),
    Example("back\\slash \\n", "null", "[]"),
    Example("\\", "/", '"'),
]


TEXTS = [kind for kind in formats.KINDS if kind not in ("xlsx", "parquet")]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_every_kind_gives_back_every_text(tmp_path: Path, kind: str, encoding: str) -> None:
    path = tmp_path / f"rows{formats.suffix(kind)}"
    assert formats.write(path, NASTY, kind) == len(NASTY)
    put(path, path.read_bytes().decode("utf-8-sig"), encoding)
    assert opened(path).kind == ("csv" if kind == "tsv" else kind)
    assert good(read(path)) == good(NASTY)


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_workbooks_and_parquet_give_back_every_text(tmp_path: Path, kind: str) -> None:
    given = [replace(row, input=row.input.replace("\x0c", "")) if kind == "xlsx" else row for row in NASTY]
    path = tmp_path / f"rows.{kind}"
    assert formats.write(path, given, kind) == len(given)
    assert opened(path).kind == kind
    assert good(read(path)) == good(given)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_packed_file_gives_the_same_rows_and_the_same_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows{formats.suffix(kind)}.gz"
    formats.write(path, NASTY, kind)
    first = path.read_bytes()
    assert first[:2] == b"\x1f\x8b"
    assert good(read(path)) == good(NASTY)
    formats.write(path, NASTY, kind)
    assert path.read_bytes() == first


def test_what_a_cell_cannot_hold_is_told_with_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.xlsx", "old")
    for text, code in (("x" * 32_768, "cell-too-long"), ("a\x0c", "cell-unfit")):
        rows = [Example("i", "", "t"), Example("i", text, "t")]
        error = error_of(lambda rows=rows: formats.write(path, rows, "xlsx"))
        assert (error.code, error.params["row"], error.params["column"]) == (code, 2, "input")
    monkeypatch.setattr("glmstudio.data.sheets._MOST_ROWS", 3)
    assert error_of(lambda: formats.write(path, NASTY[:3], "xlsx")).code == "sheet-full"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_context_lines_go_out_as_they_came_in(tmp_path: Path) -> None:
    contexts = [
        join_context("你现在是一个很厉害的阅读理解器。", "找到三元组：\n\n《九玄珠》连载于…"),
        join_context("", ""),
        "Instruction: i\nInput: x\nAnswer:",
        "问题：没有格式",
        "Instruction: no input\nAnswer: ",
        "Instruction: \nInput: Instruction: i\nInput: x\nAnswer: \nAnswer: ",
        " leading",
    ]
    lines = [json.dumps({"context": text, "target": '```json\n["答"]\n```'}, ensure_ascii=False) for text in contexts]
    source = put(tmp_path / "in.jsonl", "".join(line + "\n" for line in lines))
    rows = read(source)
    assert rejects(rows) == [(2, "prompt-empty")]
    kept = [row for row in rows if isinstance(row, Example)]
    assert [row.tags for row in kept] == [(), *[("raw-context",)] * 3, (), ("raw-context",)]
    assert (kept[1].instruction, kept[1].input) == ("", contexts[2])
    formats.write(tmp_path / "out.jsonl", kept, "context-target")
    expected = "".join(line + "\n" for line in lines[:1] + lines[2:])
    assert (tmp_path / "out.jsonl").read_bytes() == expected.encode()


def test_a_raw_context_that_gets_an_instruction_becomes_a_usual_row(tmp_path: Path) -> None:
    (row,) = read(put(tmp_path / "a.jsonl", '{"context": "问", "target": "答"}'))
    formats.write(tmp_path / "b.jsonl", [replace(row, instruction="指令")], "context-target")
    assert json.loads((tmp_path / "b.jsonl").read_bytes())["context"] == join_context("指令", "问")


@pytest.mark.parametrize("kind", formats.KINDS)
def test_split_and_status_go_out_and_come_in_again(tmp_path: Path, kind: str) -> None:
    given = [
        Example("i", "1", "t"),
        Example("i", "2", "t", split="dev"),
        Example("i", "3", "text of a draft", split="dev", status="draft"),
        Example("i", "4", "t", status="discarded"),
    ]
    path = tmp_path / f"rows{formats.suffix(kind)}"
    formats.write(path, given, kind, columns=["split", "status"])
    reading = reading_of(path, dataset="d", split="dev")
    assert [(row.input, row.split, row.status) for row in reading] == [(r.input, r.split, r.status) for r in given]
    assert reading.told.ignored == {}


@pytest.mark.parametrize(
    ("name", "wish", "kind"),
    [
        ("a.csv", None, "csv"),
        ("A.CSV", "csv", "csv"),
        ("a.json", None, "alpaca-json"),
        ("a.jsonl", None, "context-target"),
        ("a.jsonl", "alpaca-jsonl", "alpaca-jsonl"),
        ("a.tsv", None, "tsv"),
        ("a.xlsx", None, "xlsx"),
        ("a.parquet", None, "parquet"),
        ("a.json.gz", None, "alpaca-json"),
        ("A.CSV.GZ", "csv", "csv"),
        ("a.txt", "csv", "csv"),
        ("a", "alpaca-json", "alpaca-json"),
    ],
)
def test_the_ending_says_the_format(name: str, wish: str | None, kind: str) -> None:
    assert formats.kind_for(Path(name), wish) == kind


@pytest.mark.parametrize(
    ("name", "wish", "code"),
    [("a.txt", None, "ending-unknown"), ("a", None, "ending-unknown"), ("a.csv", "alpaca-jsonl", "ending-contradicts"),
     ("a.json", "alpaca-jsonl", "ending-contradicts"), ("a.xlsx.gz", None, "ending-unknown"),
     ("a.gz", "parquet", "ending-contradicts"), ("a.csv.gz", "tsv", "ending-contradicts")],
)  # fmt: skip
def test_an_ending_that_says_nothing_or_something_else_is_refused(name: str, wish: str | None, code: str) -> None:
    assert error_of(lambda: formats.kind_for(Path(name), wish)).code == code


@pytest.mark.parametrize("kind", formats.KINDS)
def test_an_export_that_breaks_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    def breaks():
        yield NASTY[0]
        raise RuntimeError("stop")

    path = put(tmp_path / "a", "old")
    with pytest.raises(RuntimeError, match="stop"):
        formats.write(path, breaks(), kind)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert formats.write(path, [], kind) == 0
    assert path.read_bytes() != b"old"


def test_a_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    put(tmp_path / "folder", "a file in its place")
    error = error_of(lambda: formats.write(tmp_path / "folder" / "a.csv", NASTY, "csv"))
    assert error.code == "file-not-written"
    assert error.params["reason"]
