"""What every background job says, as HTML: how far it is, and why it ended without a result. Pure and escaped."""

from html import escape
from typing import TYPE_CHECKING

from glmstudio.quantities import clock
from glmstudio.ui.language import error_text, t

if TYPE_CHECKING:
    from glmstudio.errors import StudioError
    from glmstudio.studio.jobs import BackgroundJob


def bar_html(done: int, total: int, *facts: str) -> str:
    """A bar with facts below it; empty ones are left out."""
    spans = "".join(f'<span class="fact">{escape(fact)}</span>' for fact in facts if fact)
    share = 100 * done / total if total else 0.0
    return f'<div class="run-status"><div class="bar"><i style="width:{share:.1f}%"></i></div><p>{spans}</p></div>'


def left_text(seconds: float | None, lang: str) -> str:
    return t("header.left", lang, time=clock(seconds)) if seconds is not None else ""


def ended_html(job: "BackgroundJob", lang: str) -> str:
    """Why a job has no result: it failed, or it was stopped, which is no fault. Empty where there is nothing to say."""
    if job.error is None:
        return ""
    if job.state == "stopped":
        return f'<p class="glm-warn">{escape(error_text(job.error, lang))}</p>'
    return failure_html(job.error, lang)


def failure_html(error: "StudioError", lang: str) -> str:
    """What went wrong, in its place on the page."""
    return f'<p class="glm-bad">✗ {escape(error_text(error, lang))}</p>'
