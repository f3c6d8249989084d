"""Right or wrong: the judged answer, as it is or corrected, becomes an example of the chosen dataset. A correction that
is changed afterwards changes that example. A dev row never becomes a train row beside itself: its
target is corrected or, where a person says so, the row is moved. Knows no model."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import Example
from glmstudio.data.verdicts import Judgement
from glmstudio.errors import StudioError
from glmstudio.ui.compare_answers import Asked
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import language_of, t
from glmstudio.ui.page import QUIET, signal

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

    def wire(self, page: "Page", asked: gr.State, answered: Any) -> None:
        """`answered` is the event after which `asked` holds an answer."""
        tab = self._tab
        inputs = [asked, self.saved, tab.dataset, tab.fate, tab.correct]
        outputs = [
            tab.right, tab.feedback, tab.verdict, self.saved, tab.fate, page.refresh_examples, page.refresh_datasets
        ]  # fmt: skip
        # Toasts need the queue.
        queued: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": None}
        tab.generate.click(lambda: gr.update(visible=False, value="dev"), None, tab.fate, **QUIET)
        answered.then(self.on_asked, [asked, tab.dataset], tab.fate, **QUIET)
        tab.dataset.change(self.on_asked, [asked, tab.dataset], tab.fate, **QUIET)
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

    def on_asked(self, asked: Asked | None, dataset: str | None) -> Any:
        """The question what becomes of a dev row is there only for one."""
        row = self._dev_row(asked, dataset or "") if asked is not None else None
        # What a person has chosen by now stays.
        return gr.update(visible=row is not None)

    def on_right(self, request: gr.Request, asked: Asked, saved: Saved, dataset: str | None, fate: str) -> list[Any]:
        return self._save(request, asked, saved, dataset, fate, asked.judged)

    def on_feedback(
        self, request: gr.Request, asked: Asked, saved: Saved, dataset: str | None, fate: str, text: str
    ) -> list[Any]:
        return self._save(request, asked, saved, dataset, fate, text)

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

    def _save(
        self, request: gr.Request, asked: Asked, saved: Saved, dataset: str | None, fate: str, text: str
    ) -> list[Any]:
        lang = language_of(request)
        row = self._dev_row(asked, dataset or "")
        judgement = Judgement(asked.judged, text.strip() == asked.judged.strip(), asked.answerer)
        try:
            if row is not None:
                example = self._studio.judge_dev_row(row, text, fate, judgement)
                key = f"compare.fate-{fate}-done"
            else:
                example, key = self._saved(asked, saved, dataset or "", text, judgement), "compare.saved"
        except StudioError as error:
            return [gr.skip(), gr.skip(), problem_html(error, lang), *[gr.skip()] * 4]
        message = escape(t(key, lang, id=example.id, dataset=example.dataset))
        gr.Success(message, title=t("page.saved", lang), duration=4)
        off, gone = gr.update(interactive=False), gr.update(visible=False)
        said = f'<span class="glm-ok">✓ {message}</span>'
        return [off, off, said, (asked, example), gone, signal(), signal()]

    def _saved(self, asked: Asked, saved: Saved, dataset: str, text: str, judgement: Judgement) -> Example:
        """The row that the verdict made, or the one that an earlier verdict made, changed."""
        if saved is not None and saved[0] == asked:
            return self._studio.judge_again(saved[1], text, judgement)
        return self._studio.save_feedback(asked.instruction, asked.input, text, dataset, judgement)

    def _dev_row(self, asked: Asked, dataset: str) -> Example | None:
        """The dev row that was asked, as it is stored now: the one that was taken, else one of the dataset that the
        verdict goes to."""
        return self._studio.dev_row(asked.instruction, asked.input, asked.row.dataset if asked.row else dataset)
