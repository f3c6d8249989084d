"""What the model sees of a row, token by token, folded under Train's check. Knows no run.

Made only while it is unfolded: a form asks again with every change.
"""

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.data.row_reader import Query
from glmstudio.errors import StudioError
from glmstudio.ui.language import error_text, label, language_of, t
from glmstudio.ui.page import QUIET, slot, stepper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glmstudio.models.prompts.preview import Piece, Preview
    from glmstudio.studio import Studio
    from glmstudio.ui.forms import Form
    from glmstudio.ui.page import Page

_BREAK = "↵"


class Previewing:
    """`place` counts the train rows of the dataset from 0."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        with gr.Accordion(label("train.preview"), open=False, elem_id="train-preview-fold") as self.fold:
            with gr.Row(elem_classes="glm-line", elem_id="train-preview-bar"):
                self.earlier = stepper("earlier", "train-preview-earlier")
                self.later = stepper("later", "train-preview-later")
                self.where = slot("train-preview-where")
            self.tokens = slot("train-preview")
        self.open, self.place = gr.State(False), gr.State(0)

    def wire(self, page: "Page", dataset: Any, form: "Form") -> None:
        """Follows the base, the dataset and the fields that change what the model sees."""
        self._form = form
        asked, shown = [self.open, self.place, dataset, *form.inputs], [self.where, self.tokens, self.place]
        opened = self.fold.expand(lambda: True, None, self.open, **QUIET)
        opened.then(self.on_look, asked, shown, **QUIET)
        self.fold.collapse(lambda: False, None, self.open, **QUIET)
        fields = [form.component(name) for name in ("prompt_style", "max_source_length", "max_target_length")]
        gr.on([item.change for item in (page.base_state, dataset, *fields)], self.on_look, asked, shown, **QUIET)
        for button, step in ((self.earlier, -1), (self.later, 1)):
            moved = button.click(lambda place, step=step: place + step, self.place, self.place, **QUIET)
            moved.then(self.on_look, asked, shown, **QUIET)

    def on_look(self, request: gr.Request, opened: bool, place: int, dataset: str | None, *typed: Any) -> list[Any]:
        if not opened:
            return [gr.skip()] * 3
        lang = language_of(request)
        (_, settings), _ = self._form.read(typed)
        query = Query(dataset=dataset or "", split="train", status="done")
        total = self._studio.page(query, limit=1).total if dataset else 0
        if not total:
            return ["", f'<p class="empty-hint">{t("train.preview-empty", lang)}</p>', 0]
        place %= total
        row = self._studio.page(query, offset=place, limit=1).rows[0]
        where = t("train.preview-row", lang, place=f"{place + 1:,}", total=f"{total:,}", id=row.id)
        try:
            found = self._studio.preview(row.instruction, row.input, row.target, settings)
        except StudioError as error:
            return [escape(where), f'<p class="glm-warn">{escape(error_text(error, lang))}</p>', place]
        return [escape(where), preview_html(found, lang), place]


def preview_html(found: "Preview", lang: str) -> str:
    """Every token in its place; those that bear loss are marked, the id stands in the hint."""
    loss = sum(piece.bears_loss for piece in found.pieces)
    facts = t("train.preview-facts", lang, tokens=len(found.pieces), prompt=found.prompt_length, loss=loss)
    # The token that opens an answer ends the prompt and is learned, too, in the families that have one.
    shared = found.prompt_length + loss - len(found.pieces)
    facts += f" {t('train.preview-shared', lang, count=shared)}" if shared > 0 else ""
    cuts = [
        t(f"train.preview-cut-{part}", lang, tokens=count)
        for part, count in (("prompt", found.cut_prompt), ("target", found.cut_target))
        if count
    ]
    warned = f' <span class="glm-warn">{escape(" ".join(cuts))}</span>' if cuts else ""
    return f"<p>{escape(facts)}{warned}</p>{tokens_html(found.pieces, found.cuts, lang)}"


def tokens_html(pieces: "Sequence[Piece]", cuts: "Mapping[int, int]", lang: str) -> str:
    """`cuts`: in front of which piece how many tokens are missing."""
    shown = []
    for place, piece in enumerate(pieces):
        if place in cuts:
            hint = escape(t("train.preview-cut-here", lang, tokens=cuts[place]))
            shown.append(f'<span class="cut" title="{hint}">{hint}</span>')
        shown.append(_token(piece))
    return f'<div class="tokens">{"".join(shown)}</div>'


def _token(piece: "Piece") -> str:
    kind = "loss" if piece.bears_loss else "prompt" if piece.in_prompt else "rest"
    text = escape(piece.text).replace("\n", f"{_BREAK}\n")
    return f'<span class="{kind}" title="{piece.id}">{text}</span>'
