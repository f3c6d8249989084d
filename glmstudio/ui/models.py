"""The Models tab: the bases on this machine and from a hub, which one is used, and what an adapter is exported as.
Layout and wiring; it knows no model."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.settings import QUANTIZATIONS
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.models_export import Exporting
from glmstudio.ui.models_words import bases_html, diagnosis_html, state_html
from glmstudio.ui.page import LIVE, QUEUED, QUIET, look_after, picks, slot

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.ui.live import Asked, Live
    from glmstudio.ui.page import Page

_HUBS = ("huggingface", "modelscope")


def build(studio: "Studio", page: "Page") -> None:
    """Called inside the tab."""
    Models(studio, page.live).wire(page)


class Models:
    """The list is made when the tab is opened and when another base has come: it reads many small files."""

    def __init__(self, studio: "Studio", live: "Live") -> None:
        self._studio = studio
        with gr.Row(elem_id="models-columns", equal_height=True):
            with gr.Column(scale=58, min_width=320, elem_id="models-left"):
                self._place_source()
                live.slot("models-state", "models", _state, js_on_load=LIVE)
                self.bases = slot("models-bases", picks("tr[data-source]", "source"))
            with gr.Column(scale=42, min_width=320, elem_id="models-right"):
                self.found = slot("models-found")
                self.exporting = Exporting(studio, live)
        # The download that Stop is about.
        self.job = gr.State("")

    def _place_source(self) -> None:
        with gr.Row(elem_classes="glm-line"):
            self.source = gr.Textbox(
                "", label=label("models.source"), placeholder=label("models.source-hint"), lines=1, max_lines=1,
                elem_id="models-source", elem_classes="glm-field", interactive=True, scale=5,
            )  # fmt: skip
            self.hub = gr.Dropdown(
                [(label(f"models.hub.{name}"), name) for name in _HUBS], value=_HUBS[0], label=label("models.hub"),
                elem_id="models-hub", interactive=True, min_width=160, scale=1,
            )  # fmt: skip
        with gr.Row(elem_classes="glm-line"):
            self.quantization = gr.Radio(
                [(label(f"choice.{name}"), name) for name in QUANTIZATIONS], value=QUANTIZATIONS[0],
                label=label("models.quantization"), elem_id="models-quantization", interactive=True,
            )  # fmt: skip
            self.look = gr.Button(label("models.look"), size="sm", elem_id="models-look")
            self.use = gr.Button(label("models.use"), variant="primary", size="sm", elem_id="models-use")
            self.stop = gr.Button(label("models.stop"), size="sm", interactive=False, elem_id="models-stop")
            self.release = gr.Button(label("models.release"), size="sm", interactive=False, elem_id="models-release")

    def wire(self, page: "Page") -> None:
        asked = [self.source, self.hub]
        looked = [self.found, self.bases]
        picked = self.bases.pick(self.on_pick, None, self.source, **QUIET)
        picked.then(self.on_look, asked, looked, **QUIET)
        gr.on([self.look.click, self.source.submit], self.on_look, asked, looked, **QUIET)
        used = self.use.click(self.on_use, [*asked, self.quantization], self.use, **QUEUED)
        # Also where the base that comes is the one that was there.
        look_after(used, js="() => { glm.woke('models', ''); glm.look(); }")
        self.stop.click(self.on_stop, self.job, self.stop, **QUIET)
        look_after(self.release.click(self.on_release, None, self.release, **QUEUED))
        page.tabs.select(self.on_open, self.source, looked, **QUIET)
        self.exporting.wire(page)
        buttons = [self.job, self.stop, self.use, self.release, self.bases]
        page.on_wake("models", self._standing, self.on_standing, [self.source], buttons)

    def _standing(self, look: "Look", asked: "Asked") -> tuple[Any, ...]:
        return look.base.state, look.base.source, look.base.quantization, look.standing("download")

    # Handlers

    def on_open(self, request: gr.Request, source: str, event: gr.SelectData) -> list[Any]:
        """The list anew whenever the tab is opened: folders come and go."""
        lang = language_of(request)
        if (getattr(event, "target_id", None) or event.value) != t("tab.models", lang):
            return [gr.skip(), gr.skip()]
        return [gr.skip() if source.strip() else _nothing_found(lang), self._list(request, source)]

    def on_standing(self, request: gr.Request, source: str) -> list[Any]:
        """Buttons, and the list when another base has come."""
        look = self._studio.look()
        status, (download, busy) = look.base, look.standing("download")
        settled = (status.available or status.state == "failed") and not busy
        return [
            download, gr.update(interactive=busy),
            gr.update(interactive=not busy and status.state != "loading"),
            gr.update(interactive=status.state not in ("failed", "released")),
            self._list(request, source) if settled else gr.skip(),
        ]  # fmt: skip

    def on_pick(self, event: gr.EventData) -> str:
        return event.source

    def on_look(self, request: gr.Request, source: str, hub: str) -> list[Any]:
        """What the base is and needs, without loading it."""
        lang = language_of(request)
        if not source.strip():
            return [_nothing_found(lang), gr.skip()]
        try:
            found = diagnosis_html(self._studio.examine_base(source.strip(), hub), lang)
        except StudioError as error:
            found = problem_html(error, lang)
        return [found, self._list(request, source)]

    def on_use(self, request: gr.Request, source: str, hub: str, quantization: str) -> Any:
        """Loads the base in the place of the one that is there; a hub's is downloaded first."""
        if not source.strip():
            raise StudioError("models-no-source")
        self._studio.use_base(source.strip(), quantization, hub)
        return gr.update(interactive=False)

    def on_release(self) -> Any:
        """Lets go of the base until somebody needs it."""
        self._studio.release_base()
        return gr.update(interactive=False)

    def on_stop(self, job: str) -> Any:
        self._studio.stop_job(job)
        return gr.update(interactive=False)

    def _list(self, request: gr.Request, source: str) -> str:
        lang = language_of(request)
        return bases_html(self._studio.bases(), self._studio.base_status(), source.strip(), lang)


def _state(look: "Look", asked: "Asked") -> str:
    return state_html(look.base, asked.told(look.job("download")), asked.language)


def _nothing_found(lang: str) -> str:
    return f'<p class="empty-hint">{t("models.found-empty", lang)}</p>'
