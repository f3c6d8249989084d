"""Streams both answers into their panes, about ten times a second, until they end, Stop is pressed or the tab closes.
Knows no verdict: it leaves what was asked and answered in `asked`."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import out_of_bounds
from glmstudio.ui.adapter_choice import DIGEST_SHOWN, adapter_label
from glmstudio.ui.answers import head, pane, panes
from glmstudio.ui.language import error_text, field_text, language_of, t
from glmstudio.ui.page import LOOK_SOON, QUIET, look_after, signal, signal_field
from glmstudio.ui.train_status import run_name

if TYPE_CHECKING:
    from glmstudio.data.verdicts import Answerer
    from glmstudio.inference.compare import Answer, Comparison
    from glmstudio.models.adapters.adapter_ref import AdapterRef
    from glmstudio.studio import Studio
    from glmstudio.ui.compare import Compare
    from glmstudio.ui.compare_prompt import Prompting
    from glmstudio.ui.page import Page

_SECONDS_BETWEEN = 0.1
# Answers that a reload finds again, of all browsers.
_REMEMBERED = 64
_STORED = "'glmstudio-answers'"
_MODEL: dict[str, Any] = {
    "show_progress": "hidden", "api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1,
}  # fmt: skip


@dataclass
class Live:
    """Answers on their way to one browser: the wish to stop, and the view to end in."""

    view: str
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Asked:
    """A prompt and what came of it. `title` is the tuned answer's run, empty where only the base answered; `adapter`
    its checkpoint, with the digest and step of the weights that answered. `answerer` is what a verdict keeps of that,
    `row` the dev row that was taken as the prompt."""

    instruction: str
    input: str
    title: str
    row: Example | None
    answers: tuple["Answer", ...]
    cut_prompt: int = 0
    adapter: "AdapterRef | None" = None
    answerer: "Answerer | None" = None

    @property
    def target(self) -> str:
        """What the dev row should answer; empty where none was asked."""
        return self.row.target if self.row is not None else ""

    @property
    def judged(self) -> str:
        """The answer that a verdict is about: the tuned one, the base's where it is alone."""
        return self.answers[-1].text


class Answering:
    """`asked` is None until a first answer has ended."""

    def __init__(self, tab: "Compare", studio: "Studio") -> None:
        self._tab, self._studio = tab, studio
        self._live: dict[str, Live] = {}
        self.asked = gr.State(None)
        # The last answers of each browser tab: what `_ended` holds under the name that the tab remembers.
        self._remembered = signal_field()
        self._ended: OrderedDict[str, Asked] = OrderedDict()
        self.buttons = [tab.generate, tab.stop, tab.message]

    def wire(self, page: "Page", prompting: "Prompting") -> Any:
        """Gives the event after which `asked` holds an answer."""
        tab, taken = self._tab, prompting.taken
        texts = [tab.instruction, tab.input]
        looking = [*texts, tab.message]
        buttons = self.buttons
        verdict = [tab.correct, tab.right, tab.wrong, tab.feedback, tab.verdict]
        shown = [tab.base_head, tab.base, tab.tuned_head, tab.tuned]
        # One such listener for an event: two would call each other for ever.
        changes = [text.change for text in texts]
        gr.on(
            changes,
            self.on_text,
            [*looking, taken],
            [*buttons, taken, tab.expected],
            trigger_mode="always_last",
            **QUIET,
        )
        brought = f"() => [sessionStorage.getItem({_STORED}) ?? '']"
        opened = [*shown, self.asked, *verdict]
        page.blocks.load(self.on_open, self._remembered, opened, js=brought, **QUIET)
        tab.run.change(self.on_checkpoint, self.asked, tab.tuned, **QUIET)
        prompting.opened.then(self.on_look, looking, buttons, **QUIET)
        # The base has come or failed.
        page.on_wake("compare", lambda look, _: look.base.state, self.on_look, looking, buttons, name="asking")
        begun = tab.generate.click(
            self.on_begin, [tab.view, *tab.form.inputs], [*buttons, *shown, *verdict, self.asked], **QUIET
        )
        look_after(begun, js=LOOK_SOON)
        asked = [*texts, tab.run, taken, *tab.form.inputs]
        answered = begun.then(self.on_answer, asked, [*shown, tab.message, self.asked, *verdict], **_MODEL)
        remembered = answered.then(self.on_remember, self.asked, self._remembered, **QUIET)
        remembered.then(None, self._remembered, None, js=f"(name) => sessionStorage.setItem({_STORED}, name)", **QUIET)
        # Also after a failure, so that Generate comes back.
        answered.then(self.on_end, texts, [tab.generate, tab.stop], **QUIET)
        tab.stop.click(self.on_stop, None, tab.stop, **QUIET)
        tab.view.input(self.on_view, [tab.view, self.asked], [tab.base, tab.tuned], **QUIET)
        return answered

    # Handlers

    def on_open(self, request: gr.Request, name: str) -> list[Any]:
        """The answers that this tab showed last, ready for a verdict, else empty panes that say what to do first."""
        lang, asked = language_of(request), self._ended.get(name)
        if asked is None:
            return [*self._empty(lang), *[gr.skip()] * 6]
        return [*self._shown(asked, "text", lang), asked, *self._ready(asked)]

    def on_remember(self, asked: Asked | None) -> str:
        """A name under which a reload finds these answers again, while the program runs."""
        if asked is None or not asked.answers:
            return ""
        name = signal()
        self._ended[name] = asked
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        return name

    def _empty(self, lang: str) -> list[str]:
        return [
            head(t("compare.base", lang), None, lang), pane("", t("compare.base-empty", lang)),
            head(t("compare.tuned-title", lang), None, lang), self._empty_tuned(lang),
        ]  # fmt: skip

    def on_checkpoint(self, request: gr.Request, asked: Any) -> Any:
        """The empty pane says something else once there is a checkpoint."""
        return gr.skip() if asked is not None else self._empty_tuned(language_of(request))

    def _empty_tuned(self, lang: str) -> str:
        return pane("", t("compare.tuned-empty" if self._studio.adapters() else "compare.no-run", lang))

    def on_look(self, request: gr.Request, instruction: str, input: str, shown: str) -> list[Any]:
        """Generate is on when the base is there and there is something to ask; else the line says what is missing.

        A line that was empty when the browser asked (`shown`) is left alone: an answer may have filled it meanwhile.
        """
        lang = language_of(request)
        if request.session_hash in self._live:
            return [gr.update(interactive=False), gr.update(interactive=True), gr.skip()]
        missing = self._missing(instruction, input, lang)
        message = f'<span class="empty-hint">{escape(missing)}</span>' if missing else "" if shown else gr.skip()
        return [gr.update(interactive=not missing), gr.update(interactive=False), message]

    def on_text(
        self, request: gr.Request, instruction: str, input: str, shown: str, taken: Example | None
    ) -> list[Any]:
        """The same; and a dev row that was changed is none any more."""
        own = taken is not None and (instruction, input) != (taken.instruction, taken.input)
        return [*self.on_look(request, instruction, input, shown), *((None, "") if own else (gr.skip(), gr.skip()))]

    def on_end(self, request: gr.Request, instruction: str, input: str) -> list[Any]:
        """The buttons after an answer; what the line says about it stays."""
        return self.on_look(request, instruction, input, "")[:2]

    def _missing(self, instruction: str, input: str, lang: str) -> str:
        status = self._studio.base_status()
        if status.error is not None:
            return error_text(status.error, lang)
        if not status.available:
            return t("compare.base-loading", lang)
        return "" if instruction.strip() or input.strip() else t("compare.no-prompt", lang)

    def on_begin(self, request: gr.Request, view: str, *typed: Any) -> list[Any]:
        """Marks this browser as answering, or says at once which setting does not hold."""
        lang = language_of(request)
        (settings,), problems = self._tab.form.read(typed)
        problems = [*problems, *out_of_bounds(settings)]
        if problems:
            text = " ".join(field_text(problem, lang) for problem in problems)
            return [gr.skip(), gr.skip(), _problem(text), *[gr.skip()] * 10]
        self._live[request.session_hash] = Live(view)
        waiting = self._waiting(request, lang)
        off = gr.update(interactive=False)
        return [off, gr.update(interactive=True), "", waiting, pane(""), waiting, pane(""), "", off, off, off, "", None]

    def on_answer(
        self, request: gr.Request, instruction: str, input: str, run: str | None, taken: Example | None, *typed: Any
    ) -> Iterator[list[Any]]:
        """Both answers as they grow; at the end in the chosen view, ready for a verdict."""
        live = self._live.get(request.session_hash)
        if live is None:
            # A generator that gives nothing would empty its outputs.
            yield [gr.skip()] * 11
            return
        lang = language_of(request)
        asked = Asked(instruction, input, "", taken, ())
        shown_at = 0.0
        try:
            (settings,), _ = self._tab.form.read(typed)
            ref = self._ref(run)
            waiting = self._waiting(request, lang)
            yield [waiting, pane(""), waiting, pane(""), *[gr.skip()] * 7]
            with closing(self._studio.compare(instruction, input, ref, settings, live.stop.is_set)) as answers:
                for comparison in answers:
                    asked = self._with(asked, comparison, lang)
                    if time.monotonic() - shown_at >= _SECONDS_BETWEEN:
                        yield [*self._shown(asked, "text", lang), *[gr.skip()] * 7]
                        shown_at = time.monotonic()
        except StudioError as error:
            shown = self._shown(asked, live.view, lang) if asked.answers else self._empty(lang)
            kept = asked if asked.answers else gr.skip()
            yield [*shown, _problem(error_text(error, lang)), kept, *[gr.skip()] * 5]
            return
        finally:
            live.stop.set()
            del self._live[request.session_hash]
        cut = t("compare.cut", lang, tokens=asked.cut_prompt) if asked.cut_prompt else ""
        yield [*self._shown(asked, live.view, lang), _problem(cut), asked, *self._ready(asked)]

    def _ready(self, asked: Asked) -> list[Any]:
        """Correction, right, wrong, save, message: as they are for answers without a verdict."""
        on = gr.update(interactive=True)
        return [asked.judged, on, on, gr.update(interactive=bool(asked.judged.strip())), ""]

    def _waiting(self, request: gr.Request, lang: str) -> str:
        """The head of an answer that has not begun, and what it waits for."""
        active = self._studio.active_run()
        if any(session != request.session_hash for session in self._live):
            words = t("compare.waiting-answer", lang)
        elif self._studio.base_status().state != "ready":
            words = t("compare.base-loading", lang)
        elif active is not None and active.status != "paused":
            words = t("compare.waiting-run", lang, run=run_name(active, lang))
        elif (evaluation := self._studio.job("evaluation")) is not None and evaluation.running:
            words = t("compare.waiting-evaluation", lang)
        elif self._studio.probing:
            words = t("compare.waiting-probe", lang)
        else:
            words = t("compare.waiting", lang)
        return head(words, None, lang)

    def _ref(self, name: str | None) -> "AdapterRef | None":
        """The checkpoint that is chosen, None where there is none. Raises StudioError `adapter-missing`."""
        ref = next((ref for ref in self._studio.adapters() if ref.name == name), None)
        if name and ref is None:
            raise StudioError("adapter-missing", folder=name)
        return ref

    def _with(self, asked: Asked, comparison: "Comparison", lang: str) -> Asked:
        ref, title = comparison.adapter, asked.title
        if ref is not None and not title:
            run = adapter_label(self._studio.run(ref.run_id), ref, lang)
            title = f"{t('compare.tuned', lang, run=run)} · {ref.digest[:DIGEST_SHOWN]}"
        return replace(
            asked, title=title, answers=comparison.rows, cut_prompt=comparison.cut_prompt, adapter=ref,
            answerer=comparison.answerer,
        )  # fmt: skip

    def _shown(self, asked: Asked, view: str, lang: str) -> list[str]:
        base, *tuned = asked.answers
        nothing = t("compare.empty-answer", lang) if base.finish_reason else ""
        left, right = panes(base.text, tuned[0].text if tuned else "", view, nothing)
        base_head = head(t("compare.base", lang), base, lang, target=asked.target)
        if not tuned:
            return [
                base_head,
                left,
                head(t("compare.tuned-title", lang), None, lang),
                pane("", t("compare.no-run", lang)),
            ]
        return [base_head, left, head(asked.title, tuned[0], lang, target=asked.target), right]

    def on_stop(self, request: gr.Request) -> Any:
        live = self._live.get(request.session_hash)
        if live is not None:
            live.stop.set()
        return gr.update(interactive=False)

    def on_view(self, request: gr.Request, view: str, asked: Asked | None) -> list[Any]:
        """The same answers in another view; answers on their way end in it."""
        live = self._live.get(request.session_hash)
        if live is not None:
            live.view = view
        if live is not None or asked is None:
            return [gr.skip(), gr.skip()]
        _, left, _, right = self._shown(asked, view, language_of(request))
        return [left, right]


def _problem(text: str) -> str:
    return f'<span class="glm-warn">{escape(text)}</span>' if text else ""
