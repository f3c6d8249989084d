"""What can be said about a text without a model, and a finding: something to know, as a code with numbers. Pure.

Here is the one parser of JSON answers, so that page, comparison and scores agree about what counts as JSON. Knows no
tokenizer, no row, no file, no database and no words.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

RAW_CONTEXT_TAG = "raw-context"
_OPENING = re.compile(r"\s*(?P<fence>```(?P<json>json)?)?\s*", re.IGNORECASE)
_TRIPLE = {"subject", "predicate", "object"}


@dataclass(frozen=True)
class JsonError:
    """Why a text is no JSON answer, and where: 1-based line and column (in characters) of the whole text.

    `code` is `no-json` (begins like prose), `json-cut` (ends too early), `json-extra` (goes on behind the value),
    `json-syntax` or `json-too-deep`.
    """

    code: str
    line: int
    column: int


@dataclass(frozen=True)
class JsonSummary:
    """`state` is empty (prose), `ok` or `broken`; `kind` is `list` or `object`; `count` its members; `triples` those
    with subject, predicate and object; `error` where the text breaks."""

    state: str
    kind: str = ""
    count: int = 0
    triples: int = 0
    error: JsonError | None = None


@dataclass(frozen=True)
class Finding:
    """Something to know about a set of rows. `severity` is error, warning or info; `count` and `rows` say how many and
    which (ids, or 1-based places for rows that have none)."""

    code: str
    severity: str
    count: int = 0
    rows: tuple[int, ...] = ()
    params: dict[str, object] = field(default_factory=dict)


def is_storable(text: str) -> bool:
    """False for a text with NUL or a lone surrogate: databases, files and tokenizers refuse those."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def begins_like_json(text: str) -> bool:
    """Whether the text opens as a JSON list or object would, a code fence allowed before it."""
    opening = _OPENING.match(text)
    return opening["json"] is not None or text[opening.end() : opening.end() + 1] in ("[", "{")


def parse_json_answer(text: str) -> tuple[Any, JsonError | None]:
    """(value, None), or (None, what is wrong). Only a list or an object is a JSON answer.

    Blanks around it, a ``` or ```json fence, and a fence that is never closed are forgiven; NaN and Infinity are not.
    """
    if not begins_like_json(text):
        return None, JsonError("no-json", 1, 1)
    opening = _OPENING.match(text)
    start, end = opening.end(), len(text.rstrip())
    if opening["fence"] and text.endswith("```", start, end):
        end = len(text[: end - len("```")].rstrip())
    try:
        value, stop = _DECODER.raw_decode(text[:end], start)
    except RecursionError:
        return None, JsonError("json-too-deep", *_place(text, start))
    except json.JSONDecodeError as error:
        cut = error.pos >= end or error.msg.startswith("Unterminated string")
        return None, JsonError("json-cut" if cut else "json-syntax", *_place(text, error.pos))
    except ValueError:
        return None, JsonError("json-syntax", *_place(text, start))
    if text[stop:end].strip():
        return None, JsonError("json-extra", *_place(text, stop))
    return value, None


def json_summary(target: str) -> JsonSummary:
    """What the page says under a target: "JSON ✓ 2 triples", or where it breaks."""
    value, error = parse_json_answer(target)
    if error is not None:
        return JsonSummary("") if error.code == "no-json" else JsonSummary("broken", error=error)
    members = value if isinstance(value, list) else [value]
    triples = sum(isinstance(member, dict) and member.keys() >= _TRIPLE for member in members)
    return JsonSummary("ok", "list" if isinstance(value, list) else "object", len(value), triples)


def json_state(target: str) -> str:
    """Empty for prose, else `ok` or `broken`."""
    return json_summary(target).state


def _place(text: str, position: int) -> tuple[int, int]:
    """1-based (line, column) of a character."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
