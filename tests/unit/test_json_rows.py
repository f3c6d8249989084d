"""Rows of JSON in any shape: a bad one never costs the others, and each has its line and number."""

import json
from pathlib import Path

import pytest

from glmstudio.data.example import Example, Reject
from glmstudio.data.reading import encodings
from tests.unit.file_cases import error_of, good, opened, put, read, rejects

ROW = '{"instruction": "%s", "output": "o"}'
TWO = [{"instruction": "甲", "input": "x", "output": "一"}, {"instruction": "乙", "input": "", "output": "二"}]
EXPECTED = [("甲", "x", "一"), ("乙", "", "二")]


def dumped(value: object, **options) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


@pytest.mark.parametrize(
    "text",
    [
        dumped(TWO),
        dumped(TWO, indent=2),
        "".join(dumped(row, indent=4) + "\n" for row in TWO),
        "".join(dumped(row) for row in TWO),
        ",\n".join(dumped(row) for row in TWO) + ",\n",
        "\n".join(map(dumped, TWO)),
        "\n\n \n".join(map(dumped, TWO)),
        dumped(TWO[:1]) + "\ufeff\n" + dumped(TWO[1:]),
        "[" + dumped(TWO[0]) + "\n" + dumped(TWO[1]) + "]",
        dumped([TWO[0]]) + "\n" + dumped([TWO[1]]),
        dumped({"data": TWO}),
        dumped({"version": "1", "data": TWO}, indent=1),
        dumped({"train": [TWO[0]], "other": [TWO[1]]}),
        dumped({"rows": TWO, "total": 2}),
        dumped({"code": 0, "data": {"list": TWO, "page": 1}}, indent=1),
        dumped({"0": TWO[0], "1": TWO[1]}),
        dumped({"a-7": TWO[0], "b-8": TWO[1]}, indent=1),
        dumped({name: {"0": TWO[0][name], "1": TWO[1][name]} for name in TWO[0]}),
        dumped({name: [row[name] for row in TWO] for name in TWO[0]}),
        dumped({"columns": list(TWO[0]), "index": [0, 1], "data": [list(row.values()) for row in TWO]}),
        dumped({"schema": {"fields": [{"name": "index"}]}, "data": TWO}),
        dumped(TWO).replace("}", ",}").replace("]", ",]"),
        dumped(TWO, indent=1).replace('"\n', '",\n'),
    ],
)
def test_rows_in_every_shape_come_in(tmp_path: Path, text: str) -> None:
    rows = read(put(tmp_path / "a.json", text))
    assert good(rows) == EXPECTED
    assert rejects(rows) == []


def test_a_row_over_several_lines_may_follow_rows_of_one(tmp_path: Path) -> None:
    lines = [ROW % "a", "{", ROW % "b", "{", '"instruction": "c",', '"output": "o"}', ROW % "d", "{7}"]
    rows = read(put(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["a", "b", "c", "d"]
    assert rejects(rows) == [(2, "json-broken"), (8, "json-broken")]


def test_lists_under_the_name_of_a_split_are_that_split(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.json", dumped({"train": TWO, "validation": TWO[:1], "测试集": TWO[1:]}, indent=1)))
    assert [row.split for row in rows] == ["train", "train", "dev", "dev"]


def test_a_row_is_no_list_of_rows(tmp_path: Path) -> None:
    row = {"meta": [{"instruction": "no"}], "instruction": "i", "output": [{"input": "x"}]}
    for text in (dumped(row), dumped([row]), dumped(row) + "\n" + dumped(row)):
        assert good(read(put(tmp_path / "a.json", text)))[0] == ("i", "", '[{"input": "x"}]')


def test_bad_lines_are_named_and_good_ones_come_in(tmp_path: Path) -> None:
    lines = [
        '{"context": "a", "target": "b"}',
        "",
        '{"context": "a", "target": ',
        "[1, 2]",
        '{"target": "b"}',
        '{"context": "\\ud83d", "target": "b"}',
        '{"context": "a\\u0000", "target": "b"}',
        '{"context": " ", "target": "b"}',
        "[" * 100_000,
        "{'context': 'a'}",
        '{"context": “a”}',
        '{"context": /* why */ "a"}',
        '{"context": "a\tb", "target": "b"}\r',
    ]
    rows = read(put(tmp_path / "a.jsonl", "\n".join(lines)))
    assert good(rows) == [("", "a", "b"), ("", "a\tb", "b")]
    assert [(row.line, row.row, row.code, row.params.get("column")) for row in rows if isinstance(row, Reject)] == [
        (3, 2, "json-broken", 27),
        (4, 3, "line-not-object", None),
        (5, 4, "field-missing", None),
        (6, 5, "field-unstorable", None),
        (7, 6, "field-nul", None),
        (8, 7, "prompt-empty", None),
        (9, 8, "json-broken", 2),
        (10, 9, "json-quotes", 2),
        (11, 10, "json-quotes", 13),
        (12, 11, "json-comment", 13),
    ]


@pytest.mark.parametrize(
    ("broken", "code", "column"),
    [
        ("{'instruction': 'c'}", "json-quotes", 2),
        ('{"instruction": “c”}', "json-quotes", 17),
        ('{"instruction"："c"}', "json-punctuation", 15),
        ('{"instruction": "c" // why\n}', "json-comment", 21),
        ('{"instruction": "c" "output": "o"}', "json-broken", 21),
        ('{"instruction": "c", "output": "o"', "json-broken", None),
        ('{"instruction: "c", "output": "o"}', "json-broken", 17),
        ("7", "line-not-object", None),
    ],
)
@pytest.mark.parametrize("layout", ["a line a row", "indented", "one line", "wrapped"])
def test_a_broken_member_costs_itself_only(tmp_path, broken: str, code: str, column: int | None, layout: str) -> None:
    members = [ROW % "a", broken, ROW % "d", ROW % "e"]
    text = {
        "a line a row": "[\n" + ",\n".join(members) + "\n]",
        "indented": "[\n" + ",\n".join(f"  {member}" for member in members) + "\n]",
        "one line": "[" + ", ".join(members) + "]",
        "wrapped": '{"data": [\n' + ",\n".join(members) + "]}",
    }[layout]
    rows = read(put(tmp_path / "a.json", text))
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["a", "d", "e"]
    (bad,) = (row for row in rows if isinstance(row, Reject))
    assert (bad.code, bad.row) == (code, 2)
    if column and layout == "a line a row":
        assert (bad.line, bad.params["column"]) == (3, column)


def test_a_comment_between_rows_is_told_and_costs_none(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.json", f"// one\n[ # two\n{ROW % 'a'}, /* three\n */ {ROW % 'b'}]"))
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["a", "b"]
    assert rejects(rows) == [(1, "json-comment"), (2, "json-comment"), (3, "json-comment")]


@pytest.mark.parametrize(
    ("behind", "found"),
    [
        (ROW % "c", []),
        (",\n[]", []),
        (f"\n {ROW % 'c'}", []),
        ("{}", [(2, "field-missing")]),
        ("null", [(2, "line-not-object")]),
        ("}", [(2, "json-broken")]),
    ],
)
def test_what_follows_a_list_is_read_or_told(tmp_path: Path, behind: str, found: list) -> None:
    rows = read(put(tmp_path / "a.json", f"[{ROW % 'a'},{ROW % 'b'}]\n {behind}\n{ROW % 'd'}"))
    assert rejects(rows) == found
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["a", "b", *"c" * ("c" in behind), "d"]


@pytest.mark.parametrize("text", [f"[{ROW % 'a'}", f"[{ROW % 'a'},\n", f"[{ROW % 'a'}, " + (ROW % "b")[:20]])
def test_a_file_that_ends_too_early_keeps_what_is_there(tmp_path: Path, text: str) -> None:
    rows = read(put(tmp_path / "a.json", text))
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["a"]
    assert [row.code for row in rows if isinstance(row, Reject)] == ["json-cut"]


def test_what_is_wrong_with_every_row_is_said_once(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", "{'instruction': 'a'}\n" * 500)
    error = error_of(lambda: opened(path))
    assert (error.code, error.params["name"], error.params["line"]) == ("every-row", "a.jsonl", 1)
    assert (error.params["reject"].code, error.params["reject"].params["column"]) == ("json-quotes", 2)
    (tmp_path / "a.jsonl").write_text("{'instruction': 'a'}\n" * 500 + ROW % "b")
    assert len(rejects(read(path))) == 500


@pytest.mark.parametrize("kind", ["list", "lines", "wrapped"])
def test_places_are_right_however_the_file_is_parted(tmp_path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(encodings, "BLOCK", 100)
    members = [ROW % f"第{number}行 {'字' * (number % 90)}" for number in range(200)]
    members[150] = '{"instruction": "a" "output": 1}'
    text = {
        "list": "[\n" + ",\n".join(members) + "]",
        "lines": "\n" + "\n".join(members),
        "wrapped": '{"data": [\n' + ",\n".join(members) + "]}",
    }[kind]
    rows = read(put(tmp_path / "a.json", text))
    assert len(good(rows)) == 199
    assert [(row.line, row.row, row.params) for row in rows if isinstance(row, Reject)] == [(152, 151, {"column": 21})]


def test_many_broken_rows_are_not_each_looked_for_through_the_whole_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("glmstudio.data.reading.json_text._MOST_LOOKED", 10_000)
    text = "[" + ",\n".join(['{"instruction": "a", "output": "b"'] * 500 + [ROW % "c"]) + "]"
    rows = read(put(tmp_path / "a.json", text))
    assert [row.instruction for row in rows if isinstance(row, Example)] == ["c"]
    assert len(rejects(rows)) == 500
