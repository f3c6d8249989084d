"""What a run's adapter begins as: a fresh one, or a checkpoint of this base, whose settings the form then shows as they
are. Knows the form's fields, no run's progress."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.ui.adapter_choice import adapter_label, fitting
from glmstudio.ui.choice import Choice
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.page import QUIET

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.studio.look import Look
    from glmstudio.ui.forms import Form
    from glmstudio.ui.page import Page

# The settings that such a checkpoint has.
_OWN = ("method", "prompt_style", "r", "lora_alpha", "target_modules", "pre_seq_len", "prefix_projection")


class Beginning:
    """`choice` is "" for a fresh adapter, else the name of a checkpoint."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        self.choice = Choice(
            [(label("train.begin-fresh"), "")], value="", label=label("train.begin"), elem_id="train-begin",
            interactive=True, min_width=140, scale=2,
        )  # fmt: skip

    def wire(self, page: "Page", form: "Form") -> None:
        fields = [form.component(name) for name in _OWN]
        self.choice.change(lambda chosen: self.on_choice(form, chosen), self.choice, fields, **QUIET)
        # The base, by which the checkpoint is read, may come later.
        page.base_state.change(lambda chosen: self._values(form, chosen), self.choice, fields, **QUIET)
        page.on_wake(
            "train", lambda look, asked: _offered(look, asked.language), self.on_look, [self.choice], [self.choice],
            name="begin",
        )  # fmt: skip

    # Handlers

    def on_look(self, request: gr.Request, value: str) -> Any:
        """The checkpoints of the base that is there."""
        choices = _offered(self._studio.look(), language_of(request))
        return gr.update(choices=choices, value=value if value in [name for _, name in choices] else "")

    def on_choice(self, form: "Form", chosen: str) -> list[Any]:
        """Who begins with a checkpoint wants to train: a base that was let go of is loaded."""
        if chosen:
            self._studio.load_base()
        return self._values(form, chosen)

    def _values(self, form: "Form", chosen: str) -> list[Any]:
        """The fields that come from the checkpoint show its values and cannot be changed."""
        try:
            values = self._studio.start_values(chosen) if chosen else {}
        except StudioError:
            # The check says what is wrong with it.
            values = {}
        return [
            gr.update(value=form.shown(name, values[name]), interactive=False)
            if name in values
            else gr.update(interactive=True)
            for name in _OWN
        ]


def _offered(look: "Look", lang: str) -> list[tuple[str, str]]:
    own = [(adapter_label(run, ref, lang), ref.name) for run, ref, fits in fitting(look) if fits]
    return [(t("train.begin-fresh", lang), ""), *own]
