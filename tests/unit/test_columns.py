"""The names that people and programs give to columns, and what becomes of values that are no texts."""

import json
from pathlib import Path

import pytest

from glmstudio.data.example import Example, Reject, join_context
from tests.unit.file_cases import error_of, good, opened, put, read, rejects


def rows_of(folder: Path, *rows: dict, **options) -> list:
    return read(put(folder / "a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)), **options)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "i", "input": "x", "output": "o"}, ("i", "x", "o")),
        ({"Instruction": "i", " INPUT ": None, "Response": "o"}, ("i", "", "o")),
        ({"instruction": "i", "context": "about", "response": "o"}, ("i", "about", "o")),
        ({"指令": "i", "输入": "x", "输出": "o"}, ("i", "x", "o")),
        ({"input": "x", "target": "o"}, ("", "x", "o")),
        ({"content": "x", "summary": "o"}, ("", "x", "o")),
        ({"prompt": "i", "response": "o"}, ("i", "", "o")),
        ({"prompt": "i", "query": "x", "response": "o"}, ("i", "x", "o")),
        ({"prompt": "i", "completion": "o"}, ("i", "", "o")),
        ({"question": "i", "answer": "o"}, ("i", "", "o")),
        ({"question": "i", "context": "x", "answer": "o"}, ("i", "x", "o")),
        ({"instruction": "i", "question": "x", "answer": "o"}, ("i", "x", "o")),
        ({"instruction": "i", "input": "", "output": "o", "text": "all of it"}, ("i", "", "o")),
        ({"text": "x", "label": "o"}, ("", "x", "o")),
        ({"问题": "i", "答案": "o"}, ("i", "", "o")),
        ({"文本": "x", "标签": "o"}, ("", "x", "o")),
        ({"query": "i", "response": "o"}, ("i", "", "o")),
        ({"Q": "i", "A": "o"}, ("i", "", "o")),
        ({"human": "i", "assistant": "o"}, ("i", "", "o")),
        ({"原文": "x", "参考答案": "o"}, ("", "x", "o")),
        ({"output": "", "response": "o", "instruction": "i"}, ("i", "", "o")),
    ],
)
def test_the_names_that_people_use(tmp_path: Path, row: dict, expected: tuple) -> None:
    assert good(rows_of(tmp_path, row)) == [expected]
    assert good(read(put(tmp_path / "a.json", json.dumps([row], indent=1)))) == [expected]


def test_values_without_a_place_are_counted(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "output": "o", "history": [["a", "b"]], "system": ""},
        {"instruction": "i", "output": "o", "history": [], "target": "second"},
        {"context": join_context("i", "x"), "instruction": "other", "input": "x", "target": "o"},
        {"instruction": "i", "output": "o", "weight": float("nan"), "text": "all"},
    ]
    reading = opened(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert good(list(reading)) == [("i", "", "o"), ("i", "", "o"), ("i", "x", "o"), ("i", "all", "o")]
    assert reading.told.ignored == {"history": 1, "target": 1, "instruction": 1}


def test_values_that_are_no_texts_become_texts(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "input": 3, "output": [{"主体": "a", "客体": None}]},
        {"instruction": "i", "input": True, "output": {"名": "b\n"}},
        {"instruction": "i", "input": 0.5, "output": 0},
        {"instruction": "i", "input": float("nan"), "output": [float("nan"), {"a": "NaN"}]},
    ]
    reading = opened(put(tmp_path / "a.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)))
    assert good(list(reading)) == [
        ("i", "3", '[{"主体": "a", "客体": null}]'),
        ("i", "true", '{"名": "b\\n"}'),
        ("i", "0.5", "0"),
        ("i", "", '[null, {"a": "NaN"}]'),
    ]
    assert reading.told.made_text == {"input": 3, "output": 4}


def test_rows_without_an_answer_are_drafts(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "input": "x"},
        {"instruction": "i", "output": None},
        {"instruction": "i", "output": float("nan")},
        {"instruction": "i", "output": " "},
        {"instruction": None, "input": None, "output": "o"},
    ]
    rows = rows_of(tmp_path, *lines)
    assert [row.status for row in rows if isinstance(row, Example)] == ["draft"] * 4
    assert rejects(rows) == [(5, "prompt-empty")]
    assert [row.status for row in read(put(tmp_path / "a.csv", "instruction,input\na,b\n"))] == ["draft"]


def test_a_split_and_a_status_of_the_row_go_before_the_rest(tmp_path: Path) -> None:
    lines = [
        {"instruction": "i", "output": "o", "split": "elsewhere", "status": 7},
        {"input": "i", "output": "o", "Split": "DEV"},
        {"input": "i", "output": "o", "split": "test", "status": "Discarded"},
    ]
    reading = opened(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(row.split, row.status) for row in reading] == [("train", "done"), ("dev", "done"), ("dev", "discarded")]
    assert reading.told.ignored == {"split": 1, "status": 1}


def test_names_that_are_not_known_are_said_once(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", '{"frage": "a", "antwort": "b"}\n' * 3), ("a.csv", "frage,antwort\na,b\nc,d\n")):
        path = put(tmp_path / name, text)
        error = error_of(lambda path=path: opened(path))
        assert (error.code, error.params["name"], error.params["found"]) == ("names-unknown", name, "frage, antwort")
        mapped = {"frage": "instruction", "antwort": "target"}
        assert good(read(path, columns=mapped))[:2] == [
            ("a", "", "b"),
            ("c", "", "d") if "csv" in name else ("a", "", "b"),
        ]


def test_a_person_says_what_a_column_is(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "id,text,output,gold\n1,x,draft of it,o\n")
    reading = opened(path, columns={"gold": "target", "id": ""}, instruction="做")
    assert good(list(reading)) == [("做", "x", "o")]
    assert reading.told.ignored == {"id": 1, "output": 1}


def said(*turns: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": text} for role, text in turns]


@pytest.mark.parametrize("name", ["conversations", "messages"])
@pytest.mark.parametrize("form", ["ShareGPT", "OpenAI", "text"])
def test_the_last_question_of_a_conversation_is_the_row(tmp_path: Path, name: str, form: str) -> None:
    turns = said(("system", "s"), ("user", "一"), ("assistant", "甲"), ("user", "二"), ("assistant", "乙"))
    value: object = turns
    if form == "ShareGPT":
        names = {"user": "human", "assistant": "gpt"}
        value = [{"from": names.get(turn["role"], "system"), "value": turn["content"]} for turn in turns]
    elif form == "text":
        value = json.dumps(turns)
    reading = opened(put(tmp_path / "a.jsonl", json.dumps({"id": "", name: value})))
    assert good(list(reading)) == [("二", "", "乙")]
    assert (reading.kind, reading.told.ignored) == ("conversations", {"history": 1, "system": 1})


@pytest.mark.parametrize("names", [("human", "assistant"), ("input", "output"), ("question", "answer")])
def test_question_and_answer_may_be_one_object(tmp_path: Path, names: tuple[str, str]) -> None:
    turns = [dict(zip(names, ("一", "甲"), strict=True)) | {"system": "s"}, dict(zip(names, ("二", "乙"), strict=True))]
    reading = opened(put(tmp_path / "a.json", json.dumps([{"conversation": turns, "category": "c"}])))
    assert good(list(reading)) == [("二", "", "乙")]
    assert reading.told.ignored == {"category": 1, "history": 1, "system": 1}


def test_conversations_that_are_none_are_refused_with_their_row(tmp_path: Path) -> None:
    conversations = [
        said(("user", "一"), ("assistant", "甲")),
        said(("user", "一"), ("tool", "甲")),
        said(("assistant", "甲"), ("user", "一")),
        [{"role": "user", "content": "一"}, {"role": "assistant", "content": None, "tool_calls": [{}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "一"}, {"type": "text", "text": "二"}]}],
        said(("user", "一")),
    ]
    rows = rows_of(tmp_path, *({"messages": turns} for turns in conversations))
    assert good(rows) == [("一", "", "甲"), ("一\n二", "", ""), ("一", "", "")]
    assert [row.status for row in rows if isinstance(row, Example)] == ["done", "draft", "draft"]
    assert [(row.row, row.code, row.params["turn"]) for row in rows if isinstance(row, Reject)] == [
        (2, "turns-tools", 2),
        (3, "turns-order", 1),
        (4, "turns-tools", 2),
        (5, "turns-no-text", 1),
    ]


def test_a_list_of_turns_is_a_row_where_rows_are_wanted(tmp_path: Path) -> None:
    turns = said(("user", "一"), ("assistant", "甲"))
    for text in (json.dumps([turns, turns]), json.dumps(turns) + "\n" + json.dumps(turns)):
        assert good(read(put(tmp_path / "a.json", text))) == [("一", "", "甲")] * 2
