"""Import and export in Annotate: a file is read and shown before any row comes in; the rows shown go out as a file.
Knows no form."""

import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.example import DEFAULT_DATASET, SPLITS, Example, Reject
from glmstudio.data.file_places import place_of
from glmstudio.data.formats import KINDS
from glmstudio.data.row_starts import TextStart
from glmstudio.ui.annotate_list import preview, query_of
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.page import LIVE, QUEUED, QUIET, Page, signal, slot
from glmstudio.ui.row_words import kinds_text, known_lines, lines_html, place_text, reject_text, told_lines, undone_text

if TYPE_CHECKING:
    from glmstudio.data.imports import ImportPreview
    from glmstudio.studio import Studio

_SHOWN_REJECTS = 100
# Gradio finds it by the default value of a parameter.
_PROGRESS = gr.Progress()
Update = dict[Any, Any]


class FilePanels:
    """Two buttons under the list, and the panels that take the form's place while they are open."""

    def __init__(self, studio: "Studio", page: Page) -> None:
        self._studio = studio
        self.changed = [page.refresh_examples, page.unseen_changes]

    def place_buttons(self) -> None:
        with gr.Row(elem_classes="glm-line", elem_id="annotate-files"):
            # Of any type: what cannot be read is refused in words, not by a toast in English.
            self.upload = gr.UploadButton(label("annotate.import"), size="sm", elem_id="annotate-import")
            self.export = gr.Button(label("annotate.export"), size="sm", elem_id="annotate-export")
        self.unread = slot("annotate-import-problem", LIVE)

    def place_panels(self) -> None:
        self.path = gr.State("")
        with gr.Column(visible=False, elem_id="annotate-import-panel", elem_classes="glm-panel") as self.import_panel:
            with gr.Row(elem_classes="glm-line"):
                self.dataset = gr.Dropdown(
                    [], allow_custom_value=True, interactive=True, label=label("annotate.import-into"),
                    elem_id="annotate-import-dataset",
                )  # fmt: skip
                self.split = gr.Dropdown(
                    [(label(f"split.{name}"), name) for name in SPLITS], value=SPLITS[0], interactive=True,
                    label=label("annotate.split"), elem_id="annotate-import-split",
                )  # fmt: skip
            self.found = gr.HTML("", elem_id="annotate-import-found", apply_default_css=False, js_on_load=None)
            self.refused = slot("annotate-import-refused", LIVE)
            self.imported = gr.State(None)
            with gr.Row(elem_classes="glm-line"):
                self.confirm = gr.Button(
                    label("annotate.import-now"), variant="primary", size="sm", elem_id="annotate-import-confirm"
                )
                self.undo_import = gr.Button(
                    label("annotate.import-undo"), size="sm", visible=False, elem_id="annotate-import-undo"
                )
                self.close_import = gr.Button(label("annotate.close"), size="sm", elem_id="annotate-import-close")
        with gr.Column(visible=False, elem_id="annotate-export-panel", elem_classes="glm-panel") as self.export_panel:
            self.to_export = gr.HTML("", apply_default_css=False, js_on_load=None)
            self.kind = gr.Radio(
                [(label(f"format.{kind}"), kind) for kind in KINDS], value=KINDS[0], interactive=True,
                label=label("annotate.format"), elem_id="annotate-export-kind",
            )  # fmt: skip
            self.drafts = gr.Checkbox(
                False, label=label("annotate.export-drafts"), interactive=True, elem_id="annotate-export-drafts"
            )
            with gr.Row(elem_classes="glm-line"):
                self.download = gr.Button(
                    label("annotate.download"), variant="primary", size="sm", elem_id="annotate-download"
                )
                self.close_export = gr.Button(label("annotate.close"), size="sm", elem_id="annotate-export-close")
            self.file = gr.DownloadButton("", visible="hidden", elem_id="annotate-file")

    def wire(self, form: gr.Column, filters: Sequence[gr.components.Component]) -> None:
        """`form` is what the panels replace; `filters` say which rows are shown and so exported."""
        self.form = form
        panels = [form, self.import_panel, self.export_panel]
        shown = [*panels, self.path, self.dataset, self.split, self.found, self.refused, self.confirm, self.unread]
        shown += [self.undo_import, self.upload]
        usual: dict[str, Any] = {"api_visibility": "private"}
        self.upload.upload(self.on_upload, [self.upload], shown, show_progress_on=self.unread, **usual)
        self.confirm.click(
            self.on_import, [self.path, self.dataset, self.split],
            [self.found, self.refused, self.confirm, self.imported, self.undo_import, *self.changed],
            show_progress_on=self.found, **usual,
        )  # fmt: skip
        self.undo_import.click(
            self.on_undo_import, [self.imported],
            [self.found, self.refused, self.confirm, self.undo_import, *self.changed], **QUEUED,
        )  # fmt: skip
        wanted = [self.drafts, *filters]
        self.export.click(self.on_export, wanted, [*panels, self.to_export], **QUEUED)
        self.drafts.input(self.on_drafts, wanted, self.to_export, **QUEUED)
        downloaded = self.download.click(
            self.on_download, [self.kind, *wanted], [self.file, self.to_export],
            show_progress_on=self.to_export, **usual,
        )  # fmt: skip
        downloaded.success(None, None, None, js="() => glm.download('annotate-file')", **QUIET)
        for button in (self.close_import, self.close_export):
            button.click(self._open, None, panels, **QUIET)

    def _open(self, which: str = "form") -> tuple[Any, Any, Any]:
        return tuple(gr.update(visible=which == name) for name in ("form", "import", "export"))

    def on_upload(self, request: gr.Request, path: str) -> Update:
        """Reads the file and shows what would come in; the name of the file says where to. What cannot be read is said
        beside the button, and the form stays."""
        language = language_of(request)
        dataset, split = place_of(Path(path).name)
        try:
            found = self._studio.preview_import(Path(path), dataset, split)
        except Exception as error:
            return {self.unread: problem_html(error, language)}
        names = [summary.name for summary in self._studio.datasets()]
        return {
            **dict(zip((self.form, self.import_panel, self.export_panel), self._open("import"), strict=True)),
            self.path: path,
            # The same file can be chosen again.
            self.upload: None,
            self.dataset: gr.update(choices=sorted({*names, dataset}), value=dataset),
            self.split: split,
            self.found: found_html(found, Path(path).name, language),
            self.refused: "",
            self.confirm: gr.update(interactive=found.good + found.known > 0),
            self.undo_import: gr.update(visible=False),
            self.unread: "",
        }

    def on_import(
        self, request: gr.Request, path: str, dataset: str, split: str, progress: gr.Progress = _PROGRESS
    ) -> Update:
        """The good rows come in, counted meanwhile."""
        language = language_of(request)
        dataset = dataset.strip() or DEFAULT_DATASET
        try:
            done = self._studio.import_file(
                Path(path), dataset, split,
                lambda rows: progress(None, desc=t("annotate.importing", language, count=f"{rows:,}")),
            )  # fmt: skip
        except Exception as error:
            return {self.refused: problem_html(error, language)}
        return {
            self.found: imported_html(done, dataset, language),
            self.refused: "",
            self.confirm: gr.update(interactive=False),
            self.imported: done.import_id,
            self.undo_import: gr.update(visible=done.import_id is not None),
            self.changed[0]: signal(),
            self.changed[1]: signal(),
        }

    def on_undo_import(self, request: gr.Request, import_id: int) -> Update:
        """The rows that came in are gone again, but for those that somebody changed."""
        language = language_of(request)
        try:
            record, stay = self._studio.undo_import(import_id)
        except Exception as error:
            return {self.refused: problem_html(error, language)}
        return {
            self.found: lines_html([undone_text(record, stay, language)], ""),
            self.refused: "",
            self.confirm: gr.update(interactive=True),
            self.undo_import: gr.update(visible=False),
            self.changed[0]: signal(),
            self.changed[1]: signal(),
        }

    def on_export(self, request: gr.Request, *wanted: Any) -> tuple[Any, ...]:
        return (*self._open("export"), self.on_drafts(request, *wanted))

    def on_drafts(self, request: gr.Request, drafts: bool, *filters: str) -> str:
        """Which rows go into the file, and which do not."""
        language, query = language_of(request), query_of(*filters)
        rows, left = self._studio.exported_rows(query, drafts=drafts)
        lines = [t("annotate.to-export", language, rows=kinds_text(rows, language))]
        if left:
            lines.append(t("annotate.export-left", language, rows=kinds_text(left, language)))
        return lines_html(lines, "")

    def on_download(self, request: gr.Request, kind: str, drafts: bool, *filters: str) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(prefix="glmstudio-") as folder:
            done = self._studio.export_file(query_of(*filters), kind, Path(folder), drafts=drafts)
            # The copy that the browser gets, which Gradio removes in its time.
            path = self.file.move_resource_to_block_cache(str(done.path))
        language = language_of(request)
        said = t("annotate.exported", language, name=done.path.name, rows=kinds_text(done.rows, language))
        return path, lines_html([said], "glm-ok")


def found_html(found: "ImportPreview", name: str, language: str) -> str:
    """What a file holds: counts, its format, the first rows and the lines that stay out."""
    title = t("annotate.found", language, name=name, format=t(f"format.{found.kind}", language))
    counts = t("annotate.found-rows", language, count=f"{found.good:,}")
    if found.good:
        counts += f" ({kinds_text(found.kinds, language)})"
    rows = "".join(_sample_row(row) for row in found.sample)
    return (
        f"<p>{escape(title)}</p><p><b>{counts}</b></p>"
        + (f'<table class="glm-rows"><tbody>{rows}</tbody></table>' if rows else "")
        + told_html(found, language)
        + rejects_html(found.rejects, language)
    )


def _sample_row(row: Example) -> str:
    asked, target = (preview(TextStart.of(text), "") for text in (row.input or row.instruction, row.target))
    return f'<tr><td>{asked}</td><td class="t">{target}</td></tr>'


def told_html(found: "ImportPreview", language: str) -> str:
    """What became of values that did not come in as they were."""
    lines = [*known_lines(found.known, language), *told_lines(found.told, language)]
    return lines_html([f"⚠ {line}" for line in lines], "glm-warn")


def rejects_html(rejects: Sequence[Reject], language: str) -> str:
    """The lines that could not become rows, each with its number and reason."""
    if not rejects:
        return ""
    title = t("annotate.rejects", language, count=f"{len(rejects):,}")
    lines = "".join(
        f"<li>{escape(place_text(reject, language))} {escape(reject_text(reject, language))}</li>"
        for reject in rejects[:_SHOWN_REJECTS]
    )
    rest = len(rejects) - _SHOWN_REJECTS
    more = f"<li>{t('annotate.rejects-more', language, count=f'{rest:,}')}</li>" if rest > 0 else ""
    return f'<p class="glm-warn">⚠ {title}</p><ul class="glm-rejects">{lines}{more}</ul>'


def imported_html(done: "ImportPreview", dataset: str, language: str) -> str:
    text = t("annotate.imported", language, count=f"{done.good:,}", dataset=dataset)
    said = f'<p><span class="glm-ok">✓</span> <b>{escape(text)}</b></p>'
    return said + told_html(done, language) + rejects_html(done.rejects, language)
