"""Exports of labelling tools: labels, spans and relations become targets, and what is left out is told."""

import json
from pathlib import Path

import pytest

from glmstudio.data.example import Example
from tests.unit.file_cases import good, opened, put

TEXT = "沈岚住在白塔"
WHO, WHERE = (
    {"start": 0, "end": 2, "text": "沈岚", "labels": ["人"]},
    {"start": 4, "end": 6, "text": "白塔", "labels": ["地"]},
)


def span(name: str, value: dict) -> dict:
    return {"id": name, "type": "labels", "from_name": "ner", "to_name": "text", "value": value}


def choice(*choices: str, name: str = "kind") -> dict:
    return {"id": name, "type": "choices", "from_name": name, "value": {"choices": list(choices)}}


RELATION = {"type": "relation", "from_id": "a", "to_id": "b", "labels": ["居住"]}
SPANS = [{"text": "沈岚", "label": "人"}, {"text": "白塔", "label": "地"}]
TRIPLE = [{"subject": "沈岚", "predicate": "居住", "object": "白塔"}]


@pytest.mark.parametrize(
    ("result", "target"),
    [
        ([choice("正面")], "正面"),
        ([choice("正面", "食物")], ["正面", "食物"]),
        ([span("a", WHO), span("b", WHERE)], SPANS),
        ([span("a", WHO), span("b", WHERE), RELATION], TRIPLE),
        ([{"id": "t", "type": "textarea", "from_name": "t", "value": {"text": ["一", "二"]}}], "一\n二"),
        ([choice("正面"), span("a", WHO)], {"kind": "正面", "ner": SPANS[:1]}),
        ([{"type": "rating", "from_name": "stars", "value": {"rating": 4}}], 4),
        ([], ""),
    ],
)
@pytest.mark.parametrize("layout", ["list", "line", "lines"])
def test_tasks_of_label_studio(tmp_path: Path, result: list, target: object, layout: str) -> None:
    cancelled = {"id": 1, "was_cancelled": True, "result": [choice("no")]}
    task = {"id": 7, "data": {"text": TEXT}, "annotations": [cancelled, {"id": 2, "result": result}], "predictions": []}
    text = {"list": json.dumps([task]), "line": json.dumps(task), "lines": (json.dumps(task) + "\n") * 2}[layout]
    rows = list(opened(put(tmp_path / "a.json", text)))
    expected = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    assert good(rows) == [("", TEXT, expected)] * (2 if layout == "lines" else 1)
    assert {row.status for row in rows} == {"done" if expected else "draft"}


def test_other_annotations_and_columns_are_told(tmp_path: Path) -> None:
    annotations = [{"result": [choice("a")]}, {"result": [choice("b")]}]
    task = {"data": {"question": "问", "source": "报"}, "annotations": annotations, "predictions": [{"result": []}]}
    reading = opened(put(tmp_path / "a.json", json.dumps([task, {"data": {"text": "未标"}, "annotations": []}])))
    assert good(list(reading)) == [("问", "", "a"), ("", "未标", "")]
    assert reading.told.ignored == {"source": 1, "annotations": 1, "predictions": 1}


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ({"label": [[0, 2, "人"], [4, 6, "地"]]}, SPANS),
        ({"label": ["正面"]}, "正面"),
        ({"label": ["正面", "食物"]}, ["正面", "食物"]),
        ({"label": "正面"}, "正面"),
        ({"label": []}, ""),
        ({"label": [[0, 99, "人"]]}, [[0, 99, "人"]]),
        ({"entities": [{"id": 1, "label": "人", "start_offset": 0, "end_offset": 2}], "relations": []}, SPANS[:1]),
        (
            {
                "entities": [
                    {"id": 1, "label": "人", "start_offset": 0, "end_offset": 2},
                    {"id": 2, "label": "地", "start_offset": 4, "end_offset": 6},
                ],
                "relations": [{"id": 1, "from_id": 1, "to_id": 2, "type": "居住"}],
            },
            TRIPLE,
        ),
    ],
)
def test_rows_of_doccano(tmp_path: Path, row: dict, target: object) -> None:
    text = json.dumps({"id": 3, "text": TEXT, **row, "Comments": []}) + "\n"
    rows = list(opened(put(tmp_path / "a.jsonl", text * 2)))
    expected = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    assert all(isinstance(found, Example) for found in rows)
    assert good(rows) == [("", TEXT, expected)] * 2
