"""Texts of the form that are typed and not saved: what `drafts.js` keeps in the browser and hands over here. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from glmstudio.data.example import SPLITS, STATUSES, Example
from glmstudio.ui.page import signal

FIELDS = ("instruction", "input", "target", "dataset", "split", "status")


@dataclass(frozen=True)
class Draft:
    """`key` names it in the browser: the id of the row it edits, or a name of its own. `row` has the typed fields, the
    id and the revision that it was loaded with."""

    key: str
    row: Example


def new_key() -> str:
    """The name of a row that is not in the store yet."""
    return f"new-{signal()}"


def form_state(key: str, stored: Example | None, forget: Sequence[str]) -> str:
    """What the browser must know to tell whether the form holds unsaved text, and which texts are saved by now."""
    known = {
        "key": key,
        "id": stored.id if stored else None,
        "revision": stored.revision if stored else 0,
        "stored": [getattr(stored, name) for name in FIELDS] if stored else None,
        "forget": list(forget),
    }
    return json.dumps(known, ensure_ascii=False)


def read_drafts(kept: str | None) -> list[Draft]:
    """Oldest first. What the browser's storage holds may be of another version, or anything: that is left alone."""
    try:
        return [_draft(item) for item in json.loads(kept or "[]")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _draft(item: dict[str, object]) -> Draft:
    values = dict(zip(FIELDS, item["fields"], strict=True))
    texts = {name: str(value or "") for name, value in values.items()}
    if texts["split"] not in SPLITS or texts["status"] not in STATUSES:
        raise ValueError(texts)
    row_id = None if item["id"] is None else int(item["id"])
    return Draft(str(item["key"]), Example(**texts, id=row_id, revision=int(item["revision"])))
