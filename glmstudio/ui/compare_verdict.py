"""Right or wrong: the judged answer, as it is or corrected, becomes an example of the chosen dataset. A correction that
is changed afterwards changes that example. Knows no model."""

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import Example
from glmstudio.data.verdicts import Judgement
from glmstudio.errors import StudioError
from glmstudio.row_verbs import tagged
from glmstudio.ui.compare_answers import Asked
from glmstudio.ui.language import error_text, language_of, t
from glmstudio.ui.page import QUIET, annotator_of, signal

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.compare import Compare
    from glmstudio.ui.page import Page

# Gradio reads the annotations of handlers to find the request, so they must hold at run time.
Saved = tuple[Asked, Example] | None


class Judging:
    """`saved` is what was asked last and the example made of it, so that a second thought changes the same row."""

    def __init__(self, tab: "Compare", studio: "Studio") -> None:
        self._tab, self._studio = tab, studio
        self.saved = gr.State(None)

    def wire(self, page: "Page", asked: gr.State) -> None:
        tab = self._tab
        inputs = [asked, self.saved, tab.dataset, tab.correct]
        outputs = [tab.right, tab.feedback, tab.verdict, self.saved, page.refresh_examples, page.refresh_datasets]
        # Toasts need the queue.
        queued: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": None}
        tab.right.click(self.on_right, inputs[:-1], outputs, **queued)
        tab.feedback.click(self.on_feedback, inputs, outputs, **queued)
        tab.correct.change(
            self.on_text,
            [asked, self.saved, tab.correct],
            [tab.feedback, tab.verdict],
            trigger_mode="always_last",
            **QUIET,
        )
        # The answer is there to be corrected: the button only leads to it.
        focus = "() => document.querySelector('#compare-correct textarea').focus()"
        tab.wrong.click(None, None, None, js=focus, **QUIET)

    # Handlers

    def on_right(self, request: gr.Request, asked: Asked, saved: Saved, dataset: str) -> list[Any]:
        return self._save(request, asked, saved, dataset, asked.judged)

    def on_feedback(self, request: gr.Request, asked: Asked, saved: Saved, dataset: str, text: str) -> list[Any]:
        return self._save(request, asked, saved, dataset, text)

    def on_text(self, request: gr.Request, asked: Asked | None, saved: Saved, text: str) -> list[Any]:
        """A correction can be sent when something was answered, there is one, and it is not saved yet."""
        if asked is None:
            return [gr.update(interactive=False), gr.skip()]
        if not text.strip():
            missing = escape(t("compare.correct-empty", language_of(request)))
            return [gr.update(interactive=False), f'<span class="empty-hint">{missing}</span>']
        if saved is not None and saved[0] == asked and saved[1].target == text:
            return [gr.update(interactive=False), gr.skip()]
        return [gr.update(interactive=True), ""]

    def _save(self, request: gr.Request, asked: Asked, saved: Saved, dataset: str, text: str) -> list[Any]:
        lang = language_of(request)
        try:
            example = self._saved(asked, saved, dataset, text, annotator_of(request))
        except StudioError as error:
            problem = f'<span class="glm-bad">{escape(error_text(error, lang))}</span>'
            return [gr.skip(), gr.skip(), problem, *[gr.skip()] * 3]
        message = escape(t("compare.saved", lang, id=example.id, dataset=example.dataset))
        gr.Success(message, title=t("page.saved", lang), duration=4)
        off = gr.update(interactive=False)
        return [off, off, f'<span class="glm-ok">✓ {message}</span>', (asked, example), signal(), signal()]

    def _saved(self, asked: Asked, saved: Saved, dataset: str, text: str, annotator: str) -> Example:
        judgement = Judgement(asked.judged, text.strip() == asked.judged.strip(), asked.answerer, annotator)
        if saved is not None and saved[0] == asked:
            row = tagged(replace(saved[1], target=text), judgement)
            return self._studio.save_example(row, saved[1].revision, judgement)
        return self._studio.save_feedback(asked.instruction, asked.input, text, dataset, judgement)
