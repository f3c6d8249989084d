"""The words of the page: two flat lists (`locales/{en,zh}.json`), looked up by key and filled with numbers.
Knows no component; `i18n` gives labels that Gradio words in the browser, `t` gives finished sentences."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.errors import StudioError

if TYPE_CHECKING:
    from glmstudio.data.quality import Finding

LANGUAGES = ("zh", "en")
COOKIE = "glmstudio_language"
# Numbers of rows that an error names.
MOST_ROWS = 32
_FOLDER = Path(__file__).with_name("locales")


@cache
def words(language: str) -> dict[str, str]:
    """The flat word list of one language. A key that is missing there is a bug that a test finds."""
    return json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))


def t(key: str, language: str, **params: object) -> str:
    """The sentence `key` in `language`, its {params} filled. "one row|{count} rows" chooses by `count`."""
    sentence = words(language)[key]
    if "count" in params and "|" in sentence:
        singular, plural = sentence.split("|")
        sentence = singular if str(params["count"]) == "1" else plural
    return sentence.format(**params) if params else sentence


def error_text(error: StudioError, language: str) -> str:
    """What a person reads about `error`: the cause and the next step."""
    params = error.params
    if isinstance(rows := params.get("rows"), list | tuple):
        params = {**params, "rows": _some(rows, most=MOST_ROWS)}
    return t(f"error.{error.code}", language, **params)


def in_numbers(dtype: str, reason: str, language: str) -> str:
    """The numbers that a base computes in, and what speaks for or against them there."""
    return t(f"dtype.{reason}", language, dtype=dtype) if reason else dtype


def field_text(error: StudioError, lang: str) -> str:
    """The same, a setting or a field of a row called by its label. What has no label keeps its name."""
    return error_text(StudioError(error.code, **_named(error.params, lang)), lang)


def finding_text(found: "Finding", lang: str) -> str:
    """A finding in words; what is an error elsewhere too keeps that sentence."""
    params = {"count": f"{found.count:,}", "rows": _some(found.rows), **_named(found.params, lang)}
    key = f"finding.{found.code}"
    return t(key if key in words(lang) else f"error.{found.code}", lang, **params)


def _named(params: Mapping[str, object], lang: str) -> dict[str, object]:
    if "field" not in params:
        return dict(params)
    name, known = params["field"], words(lang)
    labels = (known[key] for key in (f"setting.{name}.label", f"annotate.{name}") if key in known)
    return {**params, "field": next(labels, name)}


def _some(rows: Sequence[int], *, most: int = 5) -> str:
    return ", ".join(str(row) for row in rows[:most]) + ("…" if len(rows) > most else "")


def language_of(request: Any) -> str:
    """The language of the browser that sent `request` (a `gr.Request` or Starlette request): the cookie that the switch
    sets, else what the browser asks for. Chinese where neither says."""
    chosen = request.cookies.get(COOKIE, "") if request is not None else ""
    if chosen in LANGUAGES:
        return chosen
    return accepted_language(request.headers.get("accept-language", "") if request is not None else "")


def accepted_language(header: str) -> str:
    """The first of our languages in an Accept-Language header."""
    for item in header.lower().split(","):
        name = item.strip()[:2]
        if name in LANGUAGES:
            return name
    return LANGUAGES[0]


@cache
def i18n() -> Any:
    """Gradio's translator over the same word lists, given to `launch`; `label(key)` makes its markers."""
    import gradio as gr

    return gr.I18n(**{language: words(language) for language in LANGUAGES})


def label(key: str) -> Any:
    """A marker that the browser replaces by the word `key` in its own language. For labels, buttons, choices, infos."""
    return i18n()(key)
