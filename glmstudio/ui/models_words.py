"""What the Models tab says, as HTML: the bases there are, what one of them is, how downloads and exports go. Pure."""

from collections.abc import Sequence
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING

from glmstudio import quantities
from glmstudio.ui.job_words import bar_html, ended_html, failure_html, left_text
from glmstudio.ui.language import error_text, finding_text, in_numbers, t

if TYPE_CHECKING:
    from glmstudio.models.exporting.merge_check import MergeCheck
    from glmstudio.models.inspection.doctor import Diagnosis
    from glmstudio.models.inspection.library import LocalBase
    from glmstudio.studio.base_slot import BaseStatus, Download
    from glmstudio.studio.jobs import BackgroundJob

_FITS = {
    "train": ("ok", "✓"),
    "train-least": ("ok", "✓"),
    "untrained": ("warn", "!"),
    "answer": ("warn", "!"),
    "nothing": ("bad", "✗"),
}
_COLUMNS = ("base", "family", "form", "size", "fits")


def bases_html(bases: "Sequence[LocalBase]", status: "BaseStatus", chosen: str, lang: str) -> str:
    """A row a base; the resident one is marked, or that which is loaded when it is needed; a damaged one says what is
    wrong."""
    header = "".join(f"<th>{t(f'models.column.{name}', lang)}</th>" for name in _COLUMNS)
    marks = {status.source: "○" if status.state == "released" else "●"}
    rows = "".join(_base_row(base, marks.get(base.source, ""), base.source == chosen, lang) for base in bases)
    return f'<table><thead><tr><th class="m"></th>{header}</tr></thead><tbody>{rows}</tbody></table>'


def _base_row(base: "LocalBase", place: str, chosen: bool, lang: str) -> str:
    if base.problem is not None:
        kind, mark, hint = "bad", "✗", error_text(base.problem, lang)
        fits = t("models.damaged", lang)
    else:
        kind, mark = _FITS[base.fits["none"]]
        hint = t(f"fits.{base.fits['none']}", lang)
        fits = t(f"models.fits.{base.fits['none']}", lang)
    cells = (
        f'<td class="m">{place}</td>',
        f'<td title="{escape(base.source)}"><button>{escape(base_name(base.source, lang))}</button></td>',
        f'<td title="{escape(base.title)}">{escape(base.title or "–")}</td>',
        f"<td>{_form(base.form, lang)}</td>",
        f"<td>{count(base.parameters)} · {quantities.size(base.bytes_on_disk)}</td>",
        f'<td class="{kind}" title="{escape(hint)}">{mark} {escape(fits)}</td>',
    )
    return f'<tr data-source="{escape(base.source)}"{" class=chosen" if chosen else ""}>{"".join(cells)}</tr>'


def _form(form: str, lang: str) -> str:
    if not form:
        return "–"
    return f'<span title="{escape(t(f"form.{form}", lang))}">{t(f"models.form.{form}", lang)}</span>'


def base_name(source: str, lang: str) -> str:
    """A base as a person knows it: the shipped one by its word, a folder by its last part, a hub id whole."""
    if source == "embedded":
        return t("header.demonstration", lang)
    return PurePath(source).name if PurePath(source).is_absolute() else source


def count(parameters: int) -> str:
    """A number of parameters as "5.1 M" or "6.2 B"."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def diagnosis_html(found: "Diagnosis", lang: str) -> str:
    """What a base is: form, size, what it needs in memory, its tokenizer, everything that is wrong, the next step."""
    facts = [("models.fact.folder", escape(str(found.folder)))]
    if found.family:
        facts.append(("models.column.form", escape(f"{found.title} · {t(f'form.{found.form}', lang)}")))
    if found.conversion is not None:
        text = t("models.converts", lang, renamed=found.conversion.renamed, split=found.conversion.split)
        facts.append(("models.fact.loading", escape(text)))
    if found.parameters:
        size = f"{count(found.parameters)} · {quantities.size(found.bytes_on_disk)} · {', '.join(found.dtypes)}"
        facts.append(("models.column.size", escape(size)))
    if found.tokenizer is not None:
        facts.append(("models.fact.stops", escape(" ".join(found.tokenizer.stops))))
        styles = " · ".join(t(f"choice.{style}", lang) for style in found.tokenizer.styles)
        facts.append(("setting.prompt_style.label", escape(styles)))
    body = "".join(f"<dt>{t(key, lang)}</dt><dd>{text}</dd>" for key, text in facts)
    problems = "".join(failure_html(error, lang) for error in found.problems)
    if found.untrained is not None and not found.problems:
        problems = f'<p class="glm-warn">⚠ {escape(error_text(found.untrained, lang))}</p>'
    step = escape(t(f"models.next-{found.next_step}", lang))
    return f"<dl>{body}</dl>{_needs(found, lang) if found.parameters else ''}{problems}<p><b>{step}</b></p>"


def _needs(found: "Diagnosis", lang: str) -> str:
    """Memory by quantization: the weights, to answer, to train, and whether it is there."""
    names = ("quantization", "weights", "answer", "train", "fits")
    header = "".join(f"<th>{t(f'models.needs.{name}', lang)}</th>" for name in names)
    rows = ""
    for wish, needs in found.needs.items():
        kind, mark = _FITS[found.fits[wish]]
        train = f"{quantities.size(needs.train_least)} – {quantities.size(needs.train)}"
        cells = (t(f"choice.{wish}", lang), quantities.size(needs.weights), quantities.size(needs.answer), train)
        hint = escape(t(f"fits.{found.fits[wish]}", lang))
        fits = f'<td class="{kind}" title="{hint}">{mark} {t(f"models.fits.{found.fits[wish]}", lang)}</td>'
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}{fits}</tr>"
    numbers = in_numbers(found.dtype, found.dtype_reason, lang)
    free = t("models.free", lang, memory=quantities.size(found.free), device=found.device.upper(), dtype=numbers)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table><p>{escape(free)}</p>"


def state_html(status: "BaseStatus", download: "BackgroundJob | None", lang: str) -> str:
    """How the base that was asked for is coming, or why not."""
    if download is not None and download.running:
        return download_html(download.subject["source"], download, lang)
    if download is not None and (ended := ended_html(download, lang)):
        return ended
    if status.state == "downloading":
        return download_html(status.source, status.download, lang)
    if status.state == "failed" and status.error is not None:
        return failure_html(status.error, lang)
    name = base_name(status.source, lang)
    if status.state == "released":
        return f"<p>○ {escape(t('models.released', lang, name=name))}</p>"
    if status.state == "loading":
        return f'<p class="going">{escape(t("models.loading", lang, name=name))}</p>'
    return f'<p class="ok">✓ {escape(t("models.resident", lang, name=name))}</p>'


def download_html(source: str, got: "Download | BackgroundJob | None", lang: str) -> str:
    """A bar with the bytes so far and the time that is left."""
    if got is None or not got.total:
        return f'<p class="going">{escape(t("models.asking", lang, name=source))}</p>'
    words = t("models.downloading", lang, name=source, done=quantities.size(got.done), total=quantities.size(got.total))
    return bar_html(got.done, got.total, words, left_text(got.seconds_left, lang))


def export_html(now: "BackgroundJob | None", lang: str) -> str:
    """How far an export is, what it wrote and how the merge was checked, or why it failed."""
    if now is None:
        return ""
    if now.running:
        stage = t(f"export.stage.{now.stage}", lang) if now.stage else t("export.stage.begin", lang)
        return bar_html(now.done, now.total, now.subject["name"], stage, left_text(now.seconds_left, lang))
    if (result := now.result) is None:
        return ended_html(now, lang)
    written = t("export.written", lang, path=result.path, size=quantities.size(result.bytes))
    check = check_html(result.check, lang) if result.check is not None else ""
    doubt = result.doubt
    warned = f'<p class="glm-warn">⚠ {escape(finding_text(doubt, lang))}</p>' if doubt is not None else ""
    return f'<p class="ok">✓ {escape(written)}</p>{check}{warned}'


def check_html(check: "MergeCheck", lang: str) -> str:
    text = t("export.check", lang, **check.shown())
    lost = (
        "" if check.carries_adapter else f'<p class="glm-warn">⚠ {t("export.check-lost", lang, dtype=check.dtype)}</p>'
    )
    return f"<p>{escape(text)}</p>{lost}"
