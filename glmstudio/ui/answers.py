"""Answers as HTML: plain, with the difference marked, or as a JSON tree. Pure; every text is escaped, none is trusted.

What a pane says is the answer and nothing else: hints stand in an attribute that the style shows, facts in the head.
"""

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from glmstudio import quantities
from glmstudio.data.quality import json_summary, parse_json_answer
from glmstudio.inference.difference import difference
from glmstudio.ui.language import t

if TYPE_CHECKING:
    from glmstudio.inference.compare import Answer
    from glmstudio.inference.difference import Span

VIEWS = ("text", "difference", "tree")
_DEEPEST = 40


def pane(body: str, hint: str = "") -> str:
    """An answer's place; `body` is HTML, `hint` is shown where it is empty."""
    return f'<div class="answer" data-hint="{escape(hint)}">{body}</div>'


def panes(base: str, tuned: str, view: str, hint: str = "") -> tuple[str, str]:
    """Both answers in one of `VIEWS`; `hint` is shown in the place of an empty one."""
    if view == "difference" and base and tuned:
        left, right = map(marked, difference(base, tuned))
    elif view == "tree":
        left, right = tree_or_text(base), tree_or_text(tuned)
    else:
        left, right = escape(base), escape(tuned)
    return pane(left, hint), pane(right, hint)


def marked(spans: "Sequence[Span]") -> str:
    """The text of one side, what only it says marked."""
    return "".join(
        f"<mark>{escape(span.text)}</mark>" if span.kind == "different" else escape(span.text) for span in spans
    )


def tree_or_text(text: str) -> str:
    """The JSON of an answer as a tree that folds, or the text as it is where it is not JSON."""
    value, error = parse_json_answer(text)
    return escape(text) if error is not None else f'<div class="tree">{tree(value)}</div>'


def tree(value: Any, depth: int = 0) -> str:
    """Objects and lists as nested `<details>`, the rest as leaves of their type; what is too deep as JSON text."""
    if not isinstance(value, dict | list) or not value or depth > _DEEPEST:
        word = json.dumps(value, ensure_ascii=False)
        return f'<span class="leaf leaf-{type(value).__name__}">{escape(word)}</span>'
    pairs = value.items() if isinstance(value, dict) else enumerate(value, start=1)
    return f"<ul>{''.join(_branch(str(key), child, depth + 1) for key, child in pairs)}</ul>"


def _branch(key: str, child: Any, depth: int) -> str:
    name, inside = f'<span class="key">{escape(key)}</span>', tree(child, depth)
    if isinstance(child, dict | list) and child:
        size = f"{{{len(child)}}}" if isinstance(child, dict) else f"[{len(child)}]"
        return f'<li><details open><summary>{name} <span class="size">{size}</span></summary>{inside}</details></li>'
    return f"<li>{name} {inside}</li>"


def head(title: str, answer: "Answer | None", language: str, *, target: str = "") -> str:
    """The line above a pane: whose answer, how long, how fast, why it ended, its form, whether it is the wanted one."""
    facts = _facts(answer, target, language) if answer is not None else []
    spans = "".join(f'<span class="fact {kind}">{escape(text)}</span>' for kind, text in facts)
    return (
        f'<div class="pane-head"><b title="{escape(title)}">{escape(title)}</b><span class="facts">{spans}</span></div>'
    )


def _facts(answer: "Answer", target: str, language: str) -> list[tuple[str, str]]:
    """(class, words) of each fact; the verdicts wait for the end."""
    speed = quantities.rate(answer.tokens_per_second)
    facts = [
        ("", t("compare.seconds", language, seconds=f"{answer.seconds:.1f}")),
        ("", t("compare.tokens", language, tokens=answer.tokens, speed=speed)),
    ]
    if not answer.finish_reason:
        return [*facts, ("going", t("compare.ended.running", language))]
    if answer.finish_reason != "stop":
        facts.append(("warn", t(f"compare.ended.{answer.finish_reason}", language)))
    summary = json_summary(answer.text)
    if summary.state == "ok":
        unit = "triples" if summary.triples else "entries"
        facts.append(("ok", t(f"compare.json-{unit}", language, count=summary.triples or summary.count)))
    elif summary.state == "broken":
        facts.append(("bad", t("compare.json-broken", language)))
    if target:
        same = answer.text.strip() == target.strip()
        facts.append(("ok", t("compare.as-wanted", language)) if same else ("", t("compare.not-as-wanted", language)))
    return facts
