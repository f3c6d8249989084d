"""Rows as labelling tools export them (Label Studio's tasks with annotations, doccano's spans and relations) in columns
of our names: labels as text, spans as JSON with their words, relations as triples. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# A row without any of these names is of none of them.
TOOL_NAMES = frozenset(("annotations", "entities", "label"))

Cells = list[tuple[str, Any]]


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether it is a task of Label Studio: what was annotated lies apart from the annotations."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def cells_of(cells: Cells) -> Cells:
    """The columns of a row, of a labelling tool or not."""
    row = dict(cells)
    if is_task(row):
        return _of_task(row)
    if isinstance(row.get("text"), str):
        if isinstance(row.get("entities"), list) and all(map(_is_entity, row["entities"])):
            return _of_entities(row)
        if _are_spans(row.get("label"), row["text"]):
            spans = [{"text": row["text"][start:end], "label": label} for start, end, label in row["label"]]
            return [*((name, value) for name, value in cells if name != "label"), ("target", _json(spans))]
        if isinstance(labels := row.get("label"), list) and all(isinstance(each, str) for each in labels):
            # doccano says the same of a text without labels and of one that nobody has seen.
            target = _labels(labels) if labels else ""
            return [*((name, value) for name, value in cells if name != "label"), ("target", target)]
    return cells


def _of_task(row: dict[str, Any]) -> Cells:
    """Of several annotations the first that was not cancelled; the others are columns without a place."""
    done = [each for each in row["annotations"] if isinstance(each, dict) and not each.get("was_cancelled")]
    results = [each for each in (_list(done[0].get("result")) if done else []) if isinstance(each, dict)]
    rest = [("annotations", done[1:]), ("predictions", row.get("predictions"))]
    return [*row["data"].items(), ("target", _target(results)), *rest]


def _target(results: Sequence[dict[str, Any]]) -> str:
    """One kind of labels as it is; several by the names of their controls."""
    relations = [each for each in results if each.get("type") == "relation"]
    found: dict[str, Any] = {}
    if relations:
        words = {str(each.get("id")): each["value"].get("text", "") for each in results if _is_span(each)}
        found["relations"] = [
            _triple(words, each, label) for each in relations for label in _list(each.get("labels")) or [""]
        ]
    for each in results:
        value = each.get("value")
        name = str(each.get("from_name") or each.get("type"))
        if not isinstance(value, dict) or (relations and _is_span(each)):
            continue
        if _is_span(each):
            labels = _list(value.get("labels")) or [""]
            found.setdefault(name, []).extend({"text": value.get("text", ""), "label": label} for label in labels)
        elif isinstance(texts := value.get("text"), list | str):
            found[name] = "\n".join(texts) if isinstance(texts, list) else texts
        elif len(value) == 1:
            (given,) = value.values()
            found[name] = _labels(given) if isinstance(given, list) else given
    if not found:
        return ""
    only = next(iter(found.values())) if len(found) == 1 else found
    return only if isinstance(only, str) else _json(only)


def _is_span(result: dict[str, Any]) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and "start" in value and "end" in value


def _labels(labels: list[Any]) -> str:
    """One label as it is, several as a list."""
    return str(labels[0]) if len(labels) == 1 else _json(labels)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _triple(words: Mapping[str, str], relation: Mapping[str, Any], predicate: Any) -> dict[str, Any]:
    """`words` are those of the spans by their ids."""
    subject, object = (words.get(str(relation.get(name)), "") for name in ("from_id", "to_id"))
    return {"subject": subject, "predicate": predicate, "object": object}


def _is_entity(entity: Any) -> bool:
    places = ("start_offset", "end_offset")
    return isinstance(entity, dict) and all(isinstance(entity.get(name), int) for name in places)


def _of_entities(row: dict[str, Any]) -> Cells:
    """doccano's spans with relations."""
    words = {str(each.get("id")): row["text"][each["start_offset"] : each["end_offset"]] for each in row["entities"]}
    relations = [each for each in _list(row.get("relations")) if isinstance(each, dict)]
    if relations:
        target = [_triple(words, each, each.get("type", "")) for each in relations]
    else:
        target = [{"text": words[str(each.get("id"))], "label": each.get("label", "")} for each in row["entities"]]
    left = [(name, value) for name, value in row.items() if name not in ("entities", "relations")]
    return [*left, ("target", _json(target) if target else "")]


def _are_spans(value: Any, text: str) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(span, list) and len(span) == 3 and isinstance(span[2], str)
            and all(isinstance(place, int) and 0 <= place <= len(text) for place in span[:2])
            for span in value
        )
    )  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
