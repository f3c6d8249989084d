"""What stands under the three fields of the form: token counts, and whether the target is JSON. Pure."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from glmstudio.data.example import join_context
from glmstudio.data.quality import JsonSummary, begins_like_json, json_summary
from glmstudio.settings import TrainingSettings
from glmstudio.ui.language import t

if TYPE_CHECKING:
    from glmstudio.models.prompts.encoding import TokenCount

# Given a text, and of how many of its characters the tokens are counted where that is not the usual number.
Count = Callable[..., "TokenCount | None"]
# A longer target is parsed when rows are checked, and not while somebody types.
MOST_PARSED = 200_000


def instruction_gauge(instruction: str, count: Count, language: str) -> str:
    return _line("", _tokens(count(instruction), language))


def input_gauge(instruction: str, input: str, count: Count, language: str) -> str:
    """The tokens of the input, and of the whole prompt against the length that training keeps by default."""
    prompt = _against("annotate.prompt", count(join_context(instruction, input)), TrainingSettings().max_source_length)
    return _line("", _tokens(count(input), language) + " · " + prompt(language))


def target_gauge(target: str, count: Count, language: str) -> str:
    answer = _against("annotate.tokens-of", count(target), TrainingSettings().max_target_length)
    parsed = (
        json_words(json_summary(target), language)
        if len(target) <= MOST_PARSED
        else t("json.not-parsed", language, most=f"{MOST_PARSED:,}") * begins_like_json(target)
    )
    return _line(parsed, answer(language))


def _line(left: str, right: str) -> str:
    return f'<div class="glm-gauge"><span>{left}</span><span>{right}</span></div>'


def _tokens(found: "TokenCount | None", language: str) -> str:
    return t("annotate.tokens", language, count=_number(found, language))


def _number(found: "TokenCount | None", language: str) -> str:
    if found is None:
        return "–"
    number = f"{found.tokens:,}"
    return t("annotate.more-than", language, count=number) if found.more else number


def _against(key: str, found: "TokenCount | None", limit: int) -> Callable[[str], str]:
    def words(language: str) -> str:
        text = t(key, language, count=_number(found, language), limit=limit)
        too_long = found is not None and found.tokens > limit
        hint = t("annotate.too-long", language, limit=limit)
        return f'<span class="glm-warn" title="{hint}">{text}</span>' if too_long else text

    return words


def json_words(summary: JsonSummary, language: str) -> str:
    """ "JSON ✓ 2 triples", or where it breaks; empty for prose."""
    if summary.error is not None:
        reason = t(f"json.{summary.error.code}", language, line=summary.error.line, column=summary.error.column)
        return f'<span class="glm-warn">⚠ {reason}</span>'
    if not summary.state:
        return ""
    of_triples = summary.triples and summary.triples == summary.count
    kind = "triples" if of_triples else "members" if summary.kind == "list" else "keys"
    return f'<span class="glm-ok">JSON ✓ {t(f"json.{kind}", language, count=summary.count)}</span>'
