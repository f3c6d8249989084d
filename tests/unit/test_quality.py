"""JSON answers and findings: what counts as JSON, where it breaks, which rows are worth a look."""

import pytest

from glmstudio.data.example import Example
from glmstudio.data.quality import (
    JsonError,
    JsonSummary,
    begins_like_json,
    is_storable,
    json_state,
    json_summary,
    parse_json_answer,
)
from glmstudio.data.row_facts import dataset_findings

TRIPLE = '{"subject": "九玄珠", "predicate": "连载网站", "object": "纵横中文网"}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["水果"]', ["水果"]),
        (' \n{"a": 1}\t', {"a": 1}),
        ("```json\n[1]\n```", [1]),
        ("\n```JSON [1]```\n", [1]),
        ("```\n{}\n```", {}),
        ("```json\n[1, 2]", [1, 2]),
        ('["```"]', ["```"]),
        ('```json\n["```"]', ["```"]),
        ("[]", []),
    ],
)
def test_json_answers_are_read_with_or_without_a_fence(text: str, value: object) -> None:
    assert parse_json_answer(text) == (value, None)
    assert begins_like_json(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("水果", JsonError("no-json", 1, 1)),
        ("", JsonError("no-json", 1, 1)),
        ("123", JsonError("no-json", 1, 1)),
        ("【水果】", JsonError("no-json", 1, 1)),
        ("```python\n[1]\n```", JsonError("no-json", 1, 1)),
        ('```json\n[{"a": 1},\n  oops]\n```', JsonError("json-syntax", 3, 3)),
        ("[1, 2,", JsonError("json-cut", 1, 7)),
        ('```json\n[{"a": "未完', JsonError("json-cut", 2, 8)),
        ("```json", JsonError("json-cut", 1, 8)),
        ("[1] 以上", JsonError("json-extra", 1, 4)),
        ("```json\n[1]\n```\n以上是答案", JsonError("json-extra", 2, 4)),
        ("[NaN]", JsonError("json-syntax", 1, 1)),
        ("[" * 100_000, JsonError("json-too-deep", 1, 1)),
        ("[1" + "0" * 5000 + "]", JsonError("json-syntax", 1, 1)),
    ],
)
def test_what_is_no_json_answer_says_why_and_where(text: str, error: JsonError) -> None:
    assert parse_json_answer(text) == (None, error)


def test_the_summary_counts_members_and_triples() -> None:
    assert json_summary(f"```json\n[{TRIPLE}, {TRIPLE}]\n```") == JsonSummary("ok", "list", 2, 2)
    assert json_summary(f'[{TRIPLE}, "x", {{"subject": 1}}]') == JsonSummary("ok", "list", 3, 1)
    assert json_summary(TRIPLE) == JsonSummary("ok", "object", 3, 1)
    assert json_summary("prose") == JsonSummary("")
    assert json_summary("[1,\n}").error == JsonError("json-syntax", 2, 1)


def test_a_target_that_begins_like_json_is_ok_or_broken() -> None:
    assert [json_state(text) for text in ("[1]", "[1", "```json\n[水果]\n```", "一句话", "")] == [
        "ok", "broken", "broken", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "storable"), [("😀\t\x1f", True), ("a\x00", False), ("\ud83d", False)])
def test_what_databases_and_files_refuse(text: str, storable: bool) -> None:
    assert is_storable(text) is storable


def found(*examples: Example) -> dict[str, tuple[int, ...]]:
    findings = dataset_findings(iter(examples))
    assert all(finding.count == len(finding.rows) for finding in findings)
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding.rows for finding in findings}


def test_a_clean_set_has_no_findings() -> None:
    assert found(Example("i", "1", "a", id=5), Example("i", "2", "a", id=6), Example("i", "3", "a", split="dev")) == {}


def test_duplicates_and_conflicts_are_told_apart() -> None:
    assert found(
        Example("i", "x", "a", id=11),
        Example("i", " x ", "a\n", id=12),
        Example("i", "x", "b", id=13),
        Example("i", "x", "a", id=14),
        Example("i", "y", "a", id=15),
    ) == {"duplicate-rows": (12, 14), "conflicting-targets": (11, 13)}


def test_dev_rows_that_are_in_train_too_leak() -> None:
    train, leak = Example("i", "x", "a", id=1), Example("i", "x", "b", split="dev", id=2)
    assert found(leak, train, Example("i", "z", "a", split="dev", id=3)) == {"dev-leak": (2,)}


def test_rows_without_prompt_target_or_whole_json_are_named() -> None:
    assert found(
        Example("", " ", "a"),
        Example("i", "x", " \n"),
        Example("i", "y", '[{"a": '),
        Example("", "原文", "a", tags=("raw-context",)),
    ) == {"empty-prompt": (1,), "empty-target": (2,), "broken-json": (3,), "raw-context": (4,)}


def test_findings_say_how_much_they_matter() -> None:
    findings = dataset_findings([Example("i", "", ""), Example("", "x", "t", tags=("raw-context",))])
    assert [(finding.code, finding.severity) for finding in findings] == [
        ("empty-target", "warning"),
        ("raw-context", "info"),
    ]
