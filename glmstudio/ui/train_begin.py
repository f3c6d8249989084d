"""What a run's adapter begins as: a fresh one, or a checkpoint of this base, whose settings the form then shows as they
are. Knows the form's fields, no run's progress."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.errors import StudioError
from glmstudio.models.base_names import same_base
from glmstudio.ui.adapter_choice import adapter_label
from glmstudio.ui.choice import Choice
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.page import QUIET

if TYPE_CHECKING:
    from glmstudio.studio import Studio
    from glmstudio.ui.forms import Form

# The settings that such a checkpoint has.
_OWN = ("method", "prompt_style", "r", "lora_alpha", "target_modules", "pre_seq_len", "prefix_projection")


class Beginning:
    """`choice` is "" for a fresh adapter, else the name of a checkpoint; `look` takes `asked` and fills `shown`."""

    def __init__(self, studio: "Studio") -> None:
        self._studio = studio
        self.choice = Choice(
            [(label("train.begin-fresh"), "")], value="", label=label("train.begin"), elem_id="train-begin",
            interactive=True, min_width=140, scale=2,
        )  # fmt: skip
        self._choices = gr.State(())
        self.asked = self.shown = [self.choice, self._choices]

    def wire(self, form: "Form") -> None:
        fields = [form.component(name) for name in _OWN]
        self.choice.change(lambda chosen: self.on_choice(form, chosen), self.choice, fields, **QUIET)

    def look(self, request: gr.Request, value: str, last: tuple[Any, ...]) -> list[Any]:
        """The checkpoints of the base that is there; sent only when they have changed."""
        lang, status = language_of(request), self._studio.base_status()
        runs = {run.id: run for run in self._studio.runs()}
        own = [(runs[ref.run_id], ref) for ref in self._studio.adapters()]
        choices = (
            (t("train.begin-fresh", lang), ""),
            *(
                (adapter_label(run, ref, lang), ref.name)
                for run, ref in own
                if same_base((run.base.source, run.base.fingerprint), (status.source, status.fingerprint))
            ),
        )
        if choices == last:
            return [gr.skip(), gr.skip()]
        kept = value if value in [name for _, name in choices] else ""
        return [gr.update(choices=list(choices), value=kept), choices]

    def on_choice(self, form: "Form", chosen: str) -> list[Any]:
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
