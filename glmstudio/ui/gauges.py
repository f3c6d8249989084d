"""What stands under the three fields of the form: token counts, and whether the target is JSON. Pure."""

from collections.abc import Callable

from glmstudio.data.example import join_context
from glmstudio.data.quality import JsonSummary, json_summary
from glmstudio.settings import TrainingSettings
from glmstudio.ui.language import t

Count = Callable[[str], int | None]


def instruction_gauge(instruction: str, count: Count, language: str) -> str:
    return _line("", _tokens(count(instruction), language))


def input_gauge(instruction: str, input: str, count: Count, language: str) -> str:
    """The tokens of the input, and of the whole prompt against the length that training keeps by default."""
    prompt = _against("annotate.prompt", count(join_context(instruction, input)), TrainingSettings().max_source_length)
    return _line("", _tokens(count(input), language) + " · " + prompt(language))


def target_gauge(target: str, count: Count, language: str) -> str:
    answer = _against("annotate.tokens-of", count(target), TrainingSettings().max_target_length)
    return _line(json_words(json_summary(target), language), answer(language))


def _line(left: str, right: str) -> str:
    return f'<div class="glm-gauge"><span>{left}</span><span>{right}</span></div>'


def _tokens(number: int | None, language: str) -> str:
    return t("annotate.tokens", language, count="–" if number is None else f"{number:,}")


def _against(key: str, number: int | None, limit: int) -> Callable[[str], str]:
    def words(language: str) -> str:
        text = t(key, language, count="–" if number is None else f"{number:,}", limit=limit)
        too_long = number is not None and number > limit
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
