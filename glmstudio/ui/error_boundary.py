"""The one place where an error of a handler becomes words: a StudioError its sentence, everything else a number, under
which the trace stands in the log. No person reads a bare "Error", and none in another language."""

from html import escape
from typing import Any

import gradio as gr

from glmstudio import faults
from glmstudio.errors import StudioError
from glmstudio.ui.language import field_text, language_of, t

# A toast with an error stays long enough to be read twice.
_SECONDS = 20


class ErrorBoundary(gr.Blocks):
    """Blocks whose handlers may raise anything. An event past the queue shows no toast; its fault is in the log."""

    async def process_api(self, *arguments: Any, request: Any = None, **named: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*arguments, request=request, **named)
        except Exception as error:
            language = language_of(request)
            raise gr.Error(
                error_sentence(error, language), _SECONDS, title=t("page.not-done", language), print_exception=False
            ) from error


def error_sentence(error: Exception, language: str) -> str:
    """Cause and next step of an error that a person can mend; else the number of the fault, which is recorded. Gradio's
    own complaints about a value are faults, too: the page offers none that its handlers refuse."""
    if isinstance(error, StudioError):
        return field_text(error, language)
    return t("page.fault", language, number=faults.record(error))


def problem_html(error: Exception, language: str) -> str:
    """The sentence as HTML, for the place that the error is about."""
    return f'<p class="glm-bad">{escape(error_sentence(error, language))}</p>'
