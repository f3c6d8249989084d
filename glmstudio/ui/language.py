"""The words of the page: two flat lists (`locales/{en,zh}.json`), looked up by key and filled with numbers.
Knows no component; `i18n` gives labels that Gradio words in the browser, `t` gives finished sentences."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.errors import StudioError
from glmstudio.settings import flag_name

if TYPE_CHECKING:
    from glmstudio.data.quality import Finding

LANGUAGES = ("zh", "en")
COOKIE = "glmstudio_language"
# Numbers of rows that an error names.
MOST_ROWS = 32
_COUNTED = re.compile(r"\{(\w+):([^|{}]+)\|([^|{}]+)\}")
_REFERENCE = re.compile(r"\{=([\w.-]+)\}")
_FOLDER = Path(__file__).with_name("locales")


@cache
def words(language: str) -> dict[str, str]:
    """The flat word list of one language. A key that is missing there is a bug that a test finds. A sentence calls a
    field by its label: `{=key}` in it stands for the word `key`."""
    listed = _listed(language)
    return {key: _REFERENCE.sub(lambda found: listed[found[1]], text) for key, text in listed.items()}


@cache
def command_words(language: str) -> dict[str, str]:
    """The same for the command line: a field is called by its flag, and where a sentence gives other advice there, that
    stands under the key with `.command` behind it."""
    listed = _listed(language)
    named = {key: _REFERENCE.sub(lambda found: _flag(found[1]), text) for key, text in listed.items()}
    return {key: named.get(f"{key}.command", text) for key, text in named.items()}


def _listed(language: str) -> dict[str, str]:
    return json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))


def _flag(key: str) -> str:
    """ "setting.learning_rate.label" as "--learning-rate"."""
    return flag_name(key.split(".")[1])


def t(key: str, language: str, **params: object) -> str:
    """The sentence `key` in `language`, its {params} filled. "one row|{count} rows" chooses by `count`."""
    return _filled(words(language)[key], params)


def _filled(sentence: str, params: Mapping[str, object]) -> str:
    """Also fills "{tokens:token|tokens}": the number and the word that goes with it."""
    sentence = _COUNTED.sub(lambda found: f"{{{found[1]}}} {found[2 if str(params[found[1]]) == '1' else 3]}", sentence)
    if "count" in params and "|" in sentence:
        singular, plural = sentence.split("|")
        sentence = singular if str(params["count"]) == "1" else plural
    return sentence.format(**params) if params else sentence


def error_text(error: StudioError, language: str, *, command: bool = False) -> str:
    """What a person reads about `error`, on the page or at the command line: the cause and the next step."""
    params = error.params
    if isinstance(rows := params.get("rows"), list | tuple):
        params = {**params, "rows": _some(rows, most=MOST_ROWS)}
    if error.code == "not-allowed":
        params = {**params, **{name: t(f"role.{params[name]}", language) for name in ("role", "needed")}}
    if (reject := params.get("reject")) is not None:
        params = {**params, "reason": t(f"reject.{reject.code}", language, **reject.params)}
    return _filled((command_words if command else words)(language)[f"error.{error.code}"], params)


def in_numbers(dtype: str, reason: str, language: str) -> str:
    """The numbers that a base computes in, and what speaks for or against them there."""
    return t(f"dtype.{reason}", language, dtype=dtype) if reason else dtype


def field_text(error: StudioError, lang: str) -> str:
    """The same, a setting or a field of a row called by its label. What has no label keeps its name."""
    return error_text(StudioError(error.code, **_named(error.params, lang)), lang)


def finding_text(found: "Finding", lang: str, *, command: bool = False) -> str:
    """A finding in words; what is an error elsewhere too keeps that sentence."""
    named = _flagged(found.params) if command else _named(found.params, lang)
    params = {"count": f"{found.count:,}", "rows": _some(found.rows), **named}
    key, listed = f"finding.{found.code}", (command_words if command else words)(lang)
    return _filled(listed[key if key in listed else f"error.{found.code}"], params)


def _named(params: Mapping[str, object], lang: str) -> dict[str, object]:
    if "field" not in params:
        return dict(params)
    name, known = params["field"], words(lang)
    labels = (known[key] for key in (f"setting.{name}.label", f"annotate.{name}") if key in known)
    return {**params, "field": next(labels, name)}


def _flagged(params: Mapping[str, object]) -> dict[str, object]:
    return {**params, "field": flag_name(str(params["field"]))} if "field" in params else dict(params)


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
