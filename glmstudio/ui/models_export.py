"""The lower right of Models: a checkpoint goes out as adapter, merged weights or GGUF. Knows no weights."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.settings import EXPORT_KINDS
from glmstudio.ui.adapter_choice import AdapterChoice
from glmstudio.ui.language import label, language_of
from glmstudio.ui.models_words import export_html
from glmstudio.ui.page import LIVE, QUEUED, QUIET, ended_job, slot

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.page import Page


class Exporting:
    """`on_tick` takes `asked` and fills `shown`."""

    def __init__(self, studio: "Studio") -> None:
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
            self.state = slot("models-export-state", LIVE)
        # `job` is the export that Stop is about, `old` one that had ended before the page was opened.
        self._seen, self._job, self._old = gr.State(""), gr.State(""), gr.State("")
        self.asked = [*self.adapters.asked, self._seen, self._old]
        self.shown = [*self.adapters.shown, self._seen, self._job, self.state, self.start, self.stop]

    def wire(self, page: "Page") -> None:
        self.adapters.wire(page)
        page.on_load(lambda: ended_job(self._studio.job("export")), [self._old])
        asked = [self.adapters.choice, self.kind, self.destination]
        self.start.click(self.on_start, asked, [self._seen, self.start, self.state], **QUEUED)
        self.stop.click(self.on_stop, self._job, self.stop, **QUIET)

    def on_tick(self, request: gr.Request, run: str | None, last: Any, picked: bool, seen: str, old: str) -> list[Any]:
        adapters = self.adapters.look(request, run, last, picked)
        now = self._studio.job("export")
        if now is not None and now.id == old:
            now = None
        html = export_html(now, language_of(request))
        state = f"{bool(run)} {now and (now.id, now.state)} {html}"
        if state == seen:
            return [*adapters, *[gr.skip()] * 5]
        running = now is not None and now.running
        return [
            *adapters, state, now.id if now is not None else "", html,
            gr.update(interactive=bool(run) and not running), gr.update(interactive=running)
        ]  # fmt: skip

    def on_start(self, request: gr.Request, run: str | None, kind: str, destination: str) -> list[Any]:
        ref = next((ref for ref in self._studio.adapters() if ref.name == run), None)
        if ref is None:
            raise StudioError("adapter-missing", folder=run or "")
        self._studio.start_export(kind, ref, destination.strip(), language_of(request))
        # A tick may have shown the end of this before it is answered: the next one shows it again.
        return ["", gr.update(interactive=False), ""]

    def on_stop(self, job: str) -> Any:
        self._studio.stop_job(job)
        return gr.update(interactive=False)
