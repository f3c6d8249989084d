"""Scores against hand-counted answers."""

import pytest

from glmstudio.evaluation.scores import score, verdict

ONE = '{"predicate": "作者", "object_type": "人物", "subject_type": "书", "object": "清子烨", "subject": "人命观仙"}'
TWO = '{"predicate": "连载网站", "object_type": "网站", "subject_type": "小说", "object": "17k", "subject": "人命观仙"}'
WRONG = '{"predicate": "作者", "object_type": "人物", "subject_type": "书", "object": "别人", "subject": "人命观仙"}'
TRIPLES = f"```json\n[{ONE}, {TWO}]\n```"


def test_triples_are_a_set_and_types_do_not_count() -> None:
    other_types = ONE.replace("人物", "名字").replace("书", "作品")
    answer = f"```json\n[{TWO}, {other_types}, {other_types}]\n```"
    found = verdict(TRIPLES, answer)
    assert (found.kind, found.right, found.exact) == ("triples", True, False)
    assert (found.expected, found.predicted, found.correct) == (2, 2, 2)


@pytest.mark.parametrize(
    ("answer", "valid", "matches", "predicted", "correct"),
    [
        (f"[{ONE}]", True, False, 1, 1),
        (ONE, True, False, 1, 1),
        (f"```json\n[{ONE}, {WRONG}, {TWO}]\n```", True, True, 3, 2),
        ('```json\n[{"subject": "人命观仙"}]\n```', True, False, 0, 0),
        ("```json\n[]\n```", True, False, 0, 0),
        ('```json\n["人命观仙"]\n```', True, False, 0, 0),
        (f"```json\n[{ONE}, {TWO[:20]}", False, False, 0, 0),
        ("《人命观仙》的作者是清子烨。", False, False, 0, 0),
        ("", False, False, 0, 0),
    ],
)
def test_what_a_triple_answer_is_worth(answer: str, valid: bool, matches: bool, predicted: int, correct: int) -> None:
    found = verdict(TRIPLES, answer)
    assert not found.right
    assert (found.json_valid, found.format_match) == (valid, matches)
    assert (found.expected, found.predicted, found.correct) == (2, predicted, correct)


@pytest.mark.parametrize(
    ("target", "answer", "right", "matches"),
    [
        ('["水果"]', '["水果"]', True, True),
        ('["水果"]', ' [ "水果 " ]\n', True, True),
        ('["水果"]', '["酒店"]', False, True),
        ('["水果", "书籍"]', '["书籍", "水果"]', True, True),
        ('["水果"]', '["水果", "书籍"]', False, True),
        ('["水果"]', '```json\n["水果"]\n```', True, False),
        ('["水果"]', '{"类别": "水果"}', False, False),
        ('["水果"]', "[1]", False, False),
        ('["水果"]', "水果", False, False),
    ],
)
def test_labels(target: str, answer: str, right: bool, matches: bool) -> None:
    found = verdict(target, answer)
    assert (found.kind, found.right, found.format_match) == ("labels", right, matches)


def test_other_json_and_text() -> None:
    assert verdict('{"a": [1, 2]}', '{ "a": [1,2] }') == verdict('{"a": [1, 2]}', '{ "a" : [1, 2]}')
    assert verdict('{"a": [1, 2]}', '{"a": [1,2]}').right
    assert not verdict('{"a": [1, 2]}', '{"a": [2, 1]}').right
    assert not verdict('{"a": 1}', "prose").json_valid
    assert verdict("[]", "[]").kind == "json"
    assert verdict("你好。", " 你好。\n").right
    assert not verdict("你好。", "你好").right
    assert not verdict("你好。", '["你好。"]').json_valid


def test_values_that_are_no_strings_are_compared_as_json() -> None:
    target = '[{"subject": "甲", "predicate": "生日", "object": {"@value": "1990", "inWork": "乙"}}]'
    assert verdict(target, target.replace('"@value": "1990", "inWork": "乙"', '"inWork": "乙", "@value": "1990"')).right
    assert not verdict(target, target.replace("1990", "1991")).right


def test_totals() -> None:
    totals = score(
        [
            (TRIPLES, TRIPLES),
            (TRIPLES, f"```json\n[{ONE}, {WRONG}]\n```"),
            (TRIPLES, "作者是清子烨。"),
            ('["水果"]', '["水果"]'),
            ('["水果"]', "水果"),
            ("你好", "你好"),
            ('{"city": "Oslo", "count": 2}', '{"count": 2, "city": "Oslo"}'),
            ('{"city": "Oslo", "count": 2}', '{"city": "Oslo", "count": 3}'),
            ('{"city": "Oslo"}', '{"city": "Oslo"}'),
        ]
    )
    assert totals == {
        "json_valid": 6 / 8,
        "format_match": 6 / 8,
        "triple_precision": 3 / 4,
        "triple_recall": 3 / 6,
        "triple_f1": 6 / 10,
        "label_accuracy": 1 / 2,
        "json_accuracy": 2 / 3,
        "exact_match": 4 / 9,
        "accuracy": 5 / 9,
        "rows": 9,
        "right": 5,
        "exact_matches": 4,
        "json_rows": 8,
        "json_valid_rows": 6,
        "format_matches": 6,
        "triple_rows": 3,
        "triple_expected": 6,
        "triple_predicted": 4,
        "triple_correct": 3,
        "label_rows": 2,
        "label_correct": 1,
        "value_rows": 3,
        "value_correct": 2,
    }


def test_a_share_of_nothing_is_none_and_no_prediction_is_zero() -> None:
    texts = score([("你好", "再见")])
    assert texts["json_valid"] is None
    assert texts["triple_f1"] is None
    assert texts["label_accuracy"] is None
    assert texts["exact_match"] == 0.0
    prose = score([(TRIPLES, "作者是清子烨。")])
    assert (prose["json_valid"], prose["triple_precision"], prose["triple_recall"], prose["triple_f1"]) == (0, 0, 0, 0)
    assert score([])["exact_match"] is None
