"""A dropdown of every checkpoint there is, those of the resident base first. The newest of these is chosen until a
person picks another (`of_any_base`: of all). Knows no tab."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from glmstudio.models.base_names import same_base
from glmstudio.ui.choice import Choice
from glmstudio.ui.language import label, language_of, t
from glmstudio.ui.models_words import base_name
from glmstudio.ui.page import QUIET
from glmstudio.ui.train_status import run_name

if TYPE_CHECKING:
    from glmstudio.models.adapters.adapter_ref import AdapterRef
    from glmstudio.studio import Studio
    from glmstudio.training.runs import Run
    from glmstudio.ui.page import Page


# Of a digest, what tells two apart to the eye.
DIGEST_SHOWN = 6


class AdapterChoice:
    """`choice` is placed where the layout stands; `look` takes `asked` and fills `shown`, on every tick of its tab."""

    def __init__(self, studio: "Studio", elem_id: str, *, of_any_base: bool = False, **more: Any) -> None:
        self._studio, self._of_any_base = studio, of_any_base
        self.choice = Choice([], label=label("compare.run"), elem_id=elem_id, interactive=True, **more)
        self._choices, self._picked = gr.State(()), gr.State(False)
        self.shown = [self.choice, self._choices]
        self.asked = [*self.shown, self._picked]
        # What another tab fills to point at a checkpoint: its name, and True.
        self.pointed = [self.choice, self._picked]

    def wire(self, page: "Page") -> None:
        page.on_load(self.look, self.shown, inputs=self.asked)
        self.choice.input(lambda: True, None, self._picked, **QUIET)

    def look(self, request: gr.Request, value: str | None, last: tuple[Any, ...], picked: bool) -> list[Any]:
        """Every checkpoint there is; sent only when the list has changed."""
        lang = language_of(request)
        runs = {run.id: run for run in self._studio.runs()}
        status = self._studio.base_status()
        resident = status.source, status.fingerprint
        fitting, others = [], []
        for ref in self._studio.adapters():
            run = runs.get(ref.run_id)
            # One that came between the two looks is there at the next.
            if run is None:
                continue
            words = adapter_label(run, ref, lang)
            if same_base((run.base.source, run.base.fingerprint), resident):
                fitting.append((words, ref.name))
            else:
                others.append(
                    (t("compare.other-base", lang, run=words, base=base_name(run.base.source, lang)), ref.name)
                )
        choices = (*fitting, *others)
        if choices == last:
            return [gr.skip(), gr.skip()]
        names = [name for _, name in choices]
        first = next((name for _, name in (choices if self._of_any_base else fitting)), None)
        kept = value if picked and value in names else first
        return [gr.update(choices=list(choices), value=kept), choices]


def adapter_label(run: "Run", ref: "AdapterRef", lang: str) -> str:
    """ "run 3 · best (step 300)"; of one that has answered, the step that it was kept at."""
    name, _, number = ref.checkpoint.partition("-")
    # A run without dev rows has no best step: its best is its last.
    steps = {"best": run.step if run.best_eval_loss is None else run.best_step, "last": run.step}
    step = ref.step or (int(number) if number else steps[name])
    where = t(f"compare.checkpoint.{name}", lang, step=f"{step:,}")
    return f"{run_name(run, lang)} · {where}"
