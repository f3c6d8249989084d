"""How right answers are, counted against their targets. Pure: knows no model and no file.

What an answer is held against follows from its target: triples (a JSON list of objects with subject, predicate and
object), labels (a JSON list of strings), other JSON, or text.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glmstudio.data.quality import parse_json_answer

TRIPLE_KEYS = ("subject", "predicate", "object")
FENCE = "```"

Triple = tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """One answer against its target. `kind` is the target's: `triples`, `labels`, `json` or `text`.

    `right`: the same set of triples or labels, the same JSON value or the same text (blanks around it aside).
    `exact`: the same text. `json_valid`: the answer parses, in a code fence or not. `format_match`: it also has the
    target's outer form (fence or none, list or object, the target's keys, strings where the target has strings).
    `expected`, `predicted`, `correct` count triples, 0 for other kinds.
    """

    kind: str
    right: bool
    exact: bool
    json_valid: bool = False
    format_match: bool = False
    expected: int = 0
    predicted: int = 0
    correct: int = 0


def verdict(target: str, answer: str) -> Verdict:
    """Types of subject and object do not count, the order of triples and labels neither."""
    exact = target.strip() == answer.strip()
    wanted, target_error = parse_json_answer(target)
    if target_error is not None:
        return Verdict("text", exact, exact)
    given, answer_error = parse_json_answer(answer)
    valid = answer_error is None
    matches = valid and _is_fenced(target) == _is_fenced(answer) and _same_form(wanted, given)
    wanted_triples = _triples(wanted)
    if wanted_triples:
        triples = _triples(given)
        correct = len(wanted_triples & triples)
        right = triples == wanted_triples
        return Verdict("triples", right, exact, valid, matches, len(wanted_triples), len(triples), correct)
    wanted_labels = _labels(wanted)
    if wanted_labels:
        return Verdict("labels", _labels(given) == wanted_labels, exact, valid, matches)
    return Verdict("json", valid and given == wanted, exact, valid, matches)


def score(rows: Iterable[tuple[str, str]]) -> dict[str, float | int | None]:
    """Totals over (target, answer) pairs: shares from 0 to 1 beside the counts they were made from.

    A share is None where no row has such a target. `json_valid` and `format_match` are shares of the rows whose target
    is JSON. Precision, recall and F1 are micro averages over the triples of all rows whose target has triples; an
    answer that is no JSON has predicted none. `label_accuracy`: the share of rows with exactly the target's labels;
    `json_accuracy`: of those whose target is other JSON, the share with the same value. `accuracy`: `right` of all.
    """
    verdicts = [verdict(target, answer) for target, answer in rows]
    in_json = [v for v in verdicts if v.kind != "text"]
    in_triples = [v for v in verdicts if v.kind == "triples"]
    in_labels = [v for v in verdicts if v.kind == "labels"]
    in_values = [v for v in verdicts if v.kind == "json"]
    expected, predicted, correct = (
        sum(getattr(v, name) for v in in_triples) for name in ("expected", "predicted", "correct")
    )
    counts = {
        "rows": len(verdicts),
        "right": sum(v.right for v in verdicts),
        "exact_matches": sum(v.exact for v in verdicts),
        "json_rows": len(in_json),
        "json_valid_rows": sum(v.json_valid for v in in_json),
        "format_matches": sum(v.format_match for v in in_json),
        "triple_rows": len(in_triples),
        "triple_expected": expected,
        "triple_predicted": predicted,
        "triple_correct": correct,
        "label_rows": len(in_labels),
        "label_correct": sum(v.right for v in in_labels),
        "value_rows": len(in_values),
        "value_correct": sum(v.right for v in in_values),
    }
    shares = {
        "json_valid": _share(counts["json_valid_rows"], len(in_json)),
        "format_match": _share(counts["format_matches"], len(in_json)),
        "triple_precision": _share(correct, predicted) if predicted else _share(0, expected),
        "triple_recall": _share(correct, expected),
        "triple_f1": _share(2 * correct, predicted + expected),
        "label_accuracy": _share(counts["label_correct"], len(in_labels)),
        "json_accuracy": _share(counts["value_correct"], len(in_values)),
        "exact_match": _share(counts["exact_matches"], len(verdicts)),
        "accuracy": _share(counts["right"], len(verdicts)),
    }
    return shares | counts


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _is_fenced(text: str) -> bool:
    return text.strip().startswith(FENCE)


def _members(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _triples(value: Any) -> set[Triple]:
    """(subject, predicate, object) of every object that has the three; None and a lone object are fine too."""
    members = (member for member in _members(value) if isinstance(member, dict))
    return {tuple(_text(member[key]) for key in TRIPLE_KEYS) for member in members if member.keys() >= set(TRIPLE_KEYS)}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _labels(value: Any) -> set[str] | None:
    """The strings of a list of nothing but strings; None for everything else."""
    if isinstance(value, list) and all(isinstance(member, str) for member in value):
        return {member.strip() for member in value}
    return None


def _same_form(wanted: Any, given: Any) -> bool:
    """Both lists or both objects, not empty where the target is not, members of the target's types, with its keys."""
    if type(wanted) is not type(given) or bool(wanted) != bool(given):
        return False
    kinds = {type(member) for member in _members(wanted)}
    keyed = [member.keys() for member in _members(wanted) if isinstance(member, dict)]
    keys = set.intersection(*map(set, keyed)) if keyed else set()
    return all(
        type(member) in kinds and (not isinstance(member, dict) or member.keys() >= keys) for member in _members(given)
    )
