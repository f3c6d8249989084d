"""The lower right of Models: a checkpoint goes out as adapter, merged weights or GGUF. Knows no weights."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.settings import EXPORT_KINDS
from glmstudio.ui.adapter_choice import AdapterChoice
from glmstudio.ui.language import label, language_of
from glmstudio.ui.models_words import export_html
from glmstudio.ui.page import LIVE, QUEUED, QUIET, look_after

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.ui.live import Asked, Live
    from glmstudio.ui.page import Page


class Exporting:
    """The choice, the buttons and the state of the export."""

    def __init__(self, studio: "Studio", live: "Live") -> None:
        self._studio = studio
        with gr.Column(elem_id="models-export", elem_classes="glm-panel"):
            with gr.Row(elem_classes="glm-line"):
                self.adapters = AdapterChoice(studio, "models-run", of_any_base=True, min_width=160, scale=3)
                self.kind = gr.Dropdown(
                    [(label(f"export.kind.{kind}"), kind) for kind in EXPORT_KINDS], value=EXPORT_KINDS[0],
                    label=label("export.kind"), elem_id="models-kind", interactive=True, min_width=140, scale=2,
                )  # fmt: skip
            self.destination = gr.Textbox(
                "", label=label("export.destination"), placeholder=label("export.destination-hint"), lines=1,
                max_lines=1, elem_id="models-destination", elem_classes="glm-field", interactive=True,
            )  # fmt: skip
            with gr.Row(elem_classes="glm-line"):
                self.start = gr.Button(
                    label("export.start"),
                    variant="primary",
                    size="sm",
                    interactive=False,
                    elem_id="models-export-go",
                )
                self.stop = gr.Button(label("models.stop"), size="sm", interactive=False, elem_id="models-export-stop")
            live.slot("models-export-state", "models", _state, js_on_load=LIVE)
        # The export that Stop is about.
        self._job = gr.State("")
        self._buttons = [self._job, self.start, self.stop]

    def wire(self, page: "Page") -> None:
        self.adapters.wire(page, "models")
        asked = [self.adapters.choice, self.kind, self.destination]
        look_after(self.start.click(self.on_start, asked, self.start, **QUEUED))
        self.stop.click(self.on_stop, self._job, self.stop, **QUIET)
        page.on_wake("models", _standing, self.on_look, [self.adapters.choice], self._buttons, name="exporting")
        self.adapters.choice.change(self.on_look, self.adapters.choice, self._buttons, **QUIET)

    def on_look(self, run: str | None) -> list[Any]:
        job, running = self._studio.look().standing("export")
        return [job, gr.update(interactive=bool(run) and not running), gr.update(interactive=running)]

    def on_start(self, request: gr.Request, run: str | None, kind: str, destination: str) -> Any:
        ref = next((ref for ref in self._studio.adapters() if ref.name == run), None)
        if ref is None:
            raise StudioError("adapter-missing", folder=run or "")
        self._studio.start_export(kind, ref, destination.strip(), language_of(request))
        return gr.update(interactive=False)

    def on_stop(self, job: str) -> Any:
        self._studio.stop_job(job)
        return gr.update(interactive=False)


def _standing(look: "Look", asked: "Asked") -> object:
    return look.standing("export")


def _state(look: "Look", asked: "Asked") -> str:
    return export_html(asked.told(look.job("export")), asked.language)
