"""What Annotate says above its list: broken imports, and datasets that need another name. Usually empty."""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.ui.choice import Choice
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.page import QUEUED, Page, picks, signal, slot
from glmstudio.ui.row_words import broken_text, dataset_choices, to_rename

if TYPE_CHECKING:
    from glmstudio.studio import Studio


class Notices:
    """Each broken import has a button that says it was read; a dataset can be renamed on the spot."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        self.broken = slot("annotate-notices", picks("button[data-import]", "import"))
        with gr.Column(visible=False, elem_id="annotate-rename-panel", elem_classes="glm-panel", scale=0) as self.panel:
            self.why = slot("annotate-rename-why")
            with gr.Row(elem_classes="glm-line"):
                self.dataset = Choice([], label=label("annotate.rename-from"), elem_id="annotate-rename-from", scale=2)
                self.name = gr.Textbox(
                    "", label=label("annotate.rename-to"), lines=1, max_lines=1, elem_id="annotate-rename-to",
                    interactive=True, scale=2,
                )  # fmt: skip
                self.rename = gr.Button(label("annotate.rename"), size="sm", elem_id="annotate-rename", scale=1)
            self.refused = slot("annotate-rename-refused")

    def wire(self, page: Page) -> None:
        shown = [self.broken, self.panel, self.why, self.dataset]
        page.on_load(self.on_look, shown)
        self.broken.pick(self.on_read, None, shown, **QUEUED)
        changed = [page.refresh_examples, page.unseen_changes]
        self.rename.click(
            self.on_rename, [self.dataset, self.name], [*shown, self.refused, self.name, *changed], **QUEUED
        )

    def on_look(self, request: gr.Request) -> list[Any]:
        language, summaries = language_of(request), self._studio.datasets()
        lines = "".join(
            f'<p class="glm-warn" role="status">⚠ {escape(broken_text(record, language))} '
            f'<button data-import="{record.id}">{escape(t("annotate.notice-read", language))}</button></p>'
            for record in self._studio.broken_imports()
        )
        names = [name for name in to_rename(summaries) if name]
        choices = [pair for pair in dataset_choices(summaries) if pair[1] in names]
        why = f'<p class="glm-warn">⚠ {escape(t("annotate.rename-these", language))}</p>' if names else ""
        return [
            lines, gr.update(visible=bool(names)), why,
            gr.update(choices=choices, value=names[0] if names else None),
        ]  # fmt: skip

    def on_read(self, event: gr.EventData, request: gr.Request) -> list[Any]:
        self._studio.forget_import(int(getattr(event, "import")))
        return self.on_look(request)

    def on_rename(self, request: gr.Request, dataset: str | None, name: str) -> list[Any]:
        try:
            self._studio.rename_dataset(dataset or "", name.strip())
        except Exception as error:
            return [*[gr.skip()] * 4, problem_html(error, language_of(request)), *[gr.skip()] * 3]
        return [*self.on_look(request), "", "", signal(), signal()]
