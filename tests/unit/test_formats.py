"""Files of examples: what goes out comes in again, bad lines are named, good ones come in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data import formats
from glmstudio.data.example import Example, Reject, join_context
from glmstudio.errors import StudioError

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


def content(rows: list) -> list[tuple[str, str, str]]:
    return [(row.instruction, row.input, row.target) for row in rows]


def read(path: Path, **options) -> list:
    return list(formats.read(path, dataset="d", **options))


def put(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def rejects(rows: list) -> list[tuple[int, str]]:
    return [(row.line, row.code) for row in rows if isinstance(row, Reject)]


def code_of(call) -> StudioError:
    with pytest.raises(StudioError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("kind", formats.KINDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_every_kind_gives_back_every_text(tmp_path: Path, kind: str, encoding: str) -> None:
    path = tmp_path / f"rows{formats.suffix(kind)}"
    assert formats.write(path, NASTY, kind) == len(NASTY)
    put(path, path.read_bytes().decode("utf-8-sig"), encoding)
    assert formats.detect(path) == kind
    assert content(read(path)) == content(NASTY)


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


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_come_in_with_dataset_split_and_status(tmp_path: Path, suffix: str) -> None:
    text = {".jsonl": '{"instruction": "i", "output": " "}', ".csv": "Instruction ,OUTPUT\ni,o\n"}[suffix]
    (row,) = read(put(tmp_path / f"a{suffix}", text), split="dev")
    status = {".jsonl": "draft", ".csv": "done"}[suffix]
    assert (row.dataset, row.split, row.status, row.source) == ("d", "dev", status, "import")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "i", "input": "x", "output": "o"}, ("i", "x", "o")),
        ({"Instruction": "i", "INPUT": None, "Response": "o"}, ("i", "", "o")),
        ({"instruction": "i", "context": "about", "response": "o"}, ("i", "about", "o")),
        ({"指令": "i", "输入": "x", "输出": "o"}, ("i", "x", "o")),
        ({"input": "x", "target": "o"}, ("", "x", "o")),
    ],
)
def test_the_names_that_people_use(tmp_path: Path, row: dict, expected: tuple) -> None:
    assert content(read(put(tmp_path / "a.jsonl", json.dumps(row)))) == [expected]
    assert content(read(put(tmp_path / "a.json", json.dumps([row], indent=1)))) == [expected]


def test_values_without_a_place_are_counted(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "output": "o", "history": [["a", "b"]], "system": ""},
        {"instruction": "i", "output": "o", "history": [], "target": "second"},
        {"context": join_context("i", "x"), "instruction": "other", "input": "x", "target": "o"},
    ]
    reading = formats.read(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), dataset="d")
    assert content(list(reading)) == [("i", "", "o"), ("i", "", "o"), ("i", "x", "o")]
    assert reading.ignored == {"history": 1, "target": 1, "instruction": 1}


def test_bad_lines_are_named_and_good_ones_come_in(tmp_path: Path) -> None:
    lines = [
        '{"context": "a", "target": "b"}',
        "",
        '{"context": "a", "target": ',
        "[1, 2]",
        '{"context": "a"}',
        '{"target": "b"}',
        '{"context": "a", "target": ["b"]}',
        '{"context": 3, "target": "b"}',
        '{"context": "\\ud83d", "target": "b"}',
        '{"context": "a\\u0000", "target": "b"}',
        '{"context": " ", "target": "b"}',
        "[" * 100_000,
        '{"context": "a\tb", "target": "b"}\r',
    ]
    rows = read(put(tmp_path / "a.jsonl", "\n".join(lines)))
    assert content([row for row in rows if isinstance(row, Example)]) == [("", "a", "b"), ("", "a\tb", "b")]
    assert [(row.line, row.code, row.params) for row in rows if isinstance(row, Reject)] == [
        (3, "line-not-json", {"column": 27}),
        (4, "line-not-object", {}),
        (5, "field-missing", {"field": "target"}),
        (6, "field-missing", {"field": "context"}),
        (7, "field-not-text", {"field": "target", "type": "array"}),
        (8, "field-not-text", {"field": "context", "type": "number"}),
        (9, "field-unstorable", {"field": "context"}),
        (10, "field-unstorable", {"field": "context"}),
        (11, "prompt-empty", {}),
        (12, "line-not-json", {"column": 1}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_broken_byte_costs_its_own_line_only(tmp_path: Path, encoding: str) -> None:
    lines = [f'{{"context": "第{number}句", "target": "答"}}'.encode(encoding) for number in range(9)]
    lines[4] = lines[4].replace("答".encode(encoding), b"\xff\xff")
    rows = read(put(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert rejects(rows) == [(5, "encoding")]
    assert rows[4].params == {"encoding": encoding.upper()}
    assert rows[5].input == "第5句"


def test_a_broken_list_keeps_the_rows_before_the_break(tmp_path: Path) -> None:
    text = '[\n {"instruction": "a", "output": "b"},\n 7,\n {"instruction": "c"}\n , {"instruction": "d" 7}]'
    rows = read(put(tmp_path / "a.json", text))
    assert content(rows[:1]) == [("a", "", "b")]
    assert rejects(rows) == [(3, "line-not-object"), (4, "field-missing"), (5, "json-syntax")]
    assert rows[-1].params == {"column": 24}


ROW = '{"instruction": "%s", "output": "o"}'


def test_lists_behind_each_other_all_come_in(tmp_path: Path) -> None:
    text = f"[{ROW % 'a'},\n{ROW % 'b'}]\n\n[]\n[{ROW % 'c'}][{ROW % 'd'}]\n"
    rows = read(put(tmp_path / "a.json", text))
    assert [row.instruction for row in rows] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("behind", "line", "column"),
    [(ROW % "c", 2, 2), ("{}", 2, 2), ("null", 2, 2), ("7", 2, 2), (",\n[]", 2, 2), ("}", 2, 2), (f"\n {ROW}", 3, 2)],
)
def test_what_follows_a_list_is_told_with_its_place(tmp_path: Path, behind: str, line: int, column: int) -> None:
    rows = read(put(tmp_path / "a.json", f"[{ROW % 'a'},\n{ROW % 'b'}]".replace("\n", " ") + f"\n {behind}"))
    assert [row.instruction for row in rows[:2]] == ["a", "b"]
    assert rows[2:] == [Reject(line, "json-behind", {"column": column})]


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
    reading = formats.read(path, dataset="d", split="dev")
    assert [(row.input, row.split, row.status) for row in reading] == [(r.input, r.split, r.status) for r in given]
    assert reading.ignored == {}


def test_a_split_or_status_of_others_is_a_column_like_any(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "output": "o", "split": "test", "status": 7},
        {"input": "i", "output": "o", "Split": "DEV"},
    ]
    reading = formats.read(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))), dataset="d")
    assert [(row.split, row.status) for row in reading] == [("train", "done"), ("dev", "done")]
    assert reading.ignored == {"split": 1, "status": 1}


@pytest.mark.parametrize(
    ("name", "wish", "kind"),
    [
        ("a.csv", None, "csv"),
        ("A.CSV", "csv", "csv"),
        ("a.json", None, "alpaca-json"),
        ("a.jsonl", None, "context-target"),
        ("a.jsonl", "alpaca-jsonl", "alpaca-jsonl"),
        ("a.txt", "csv", "csv"),
        ("a", "alpaca-json", "alpaca-json"),
    ],
)
def test_the_ending_says_the_format(name: str, wish: str | None, kind: str) -> None:
    assert formats.kind_for(Path(name), wish) == kind


@pytest.mark.parametrize(
    ("name", "wish", "code"),
    [("a.txt", None, "ending-unknown"), ("a", None, "ending-unknown"), ("a.csv", "alpaca-jsonl", "ending-contradicts"),
     ("a.json", "alpaca-jsonl", "ending-contradicts")],
)  # fmt: skip
def test_an_ending_that_says_nothing_or_something_else_is_refused(name: str, wish: str | None, code: str) -> None:
    assert code_of(lambda: formats.kind_for(Path(name), wish)).code == code


@pytest.mark.parametrize("text", ['[{"instruction": "a", "output": "b"}', '[{"instruction": "a", "output": "b"} {}]'])
def test_a_list_that_does_not_go_on_is_named(tmp_path: Path, text: str) -> None:
    rows = read(put(tmp_path / "a.json", text))
    assert content(rows[:1]) == [("a", "", "b")]
    assert rejects(rows) == [(1, "json-syntax")]


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
    )
    rows = read(put(tmp_path / "a.csv", text))
    good = content([row for row in rows if isinstance(row, Example)])
    assert good == [("a", "two\r\nlines", "b"), ("g", "h", "i"), ("j", "k", 'say "l"')]
    assert [(row.line, row.code, row.params) for row in rows if isinstance(row, Reject)] == [
        (4, "csv-columns", {"expected": 3, "found": 4}),
        (7, "field-missing", {"field": "target"}),
        (8, "csv-syntax", {}),
        (9, "csv-syntax", {}),
    ]


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_other_delimiters_and_long_texts(tmp_path: Path, delimiter: str) -> None:
    long = "长" * 200_000
    path = put(tmp_path / "a.csv", delimiter.join(["input", "output"]) + "\n" + delimiter.join([long, "a,b"]) + "\n")
    assert content(read(path)) == [("", long, "a,b")]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("a.jsonl", " \n\n", "file-empty"),
        ("a.jsonl", '{"conversations": []}\n', "unknown-format"),
        ("a.json", '{"data": 1}', "unknown-format"),
        ("a.json", "[1, 2]", "unknown-format"),
        ("a.csv", "name,age\nli,3\n", "unknown-format"),
        ("a.csv", "instruction,input\na,b\n", "column-missing"),
        ("a.csv", "id,output\na,b\n", "column-missing"),
        ("a.xlsx", b"PK\x03\x04\x00\x00\xff\xfe\x00", "unknown-format"),
        ("a.txt", "写给编辑的一封信", "unknown-format"),
    ],
)
def test_a_file_that_is_no_data_is_refused_by_name(tmp_path: Path, name: str, text, code: str) -> None:
    error = code_of(lambda: read(put(tmp_path / name, text)))
    assert (error.code, error.params["name"]) == (code, name)


def test_a_missing_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    error = code_of(lambda: formats.read(tmp_path / "gone.jsonl", dataset="d"))
    assert (error.code, error.params["name"]) == ("file-missing", "gone.jsonl")


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
    assert path.read_text() != "old"


def test_a_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    put(tmp_path / "folder", "a file in its place")
    error = code_of(lambda: formats.write(tmp_path / "folder" / "a.csv", NASTY, "csv"))
    assert error.code == "file-not-written"
    assert error.params["reason"]
