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
    from glmstudio.studio.look import Look
    from glmstudio.training.runs import Run
    from glmstudio.ui.page import Page


# Of a digest, what tells two apart to the eye.
DIGEST_SHOWN = 6


class AdapterChoice:
    """`choice` is placed where the layout stands and follows the look once `wire` was called."""

    def __init__(self, studio: "Studio", elem_id: str, *, of_any_base: bool = False, **more: Any) -> None:
        self._studio, self._elem_id, self._of_any_base = studio, elem_id, of_any_base
        self.choice = Choice([], label=label("compare.run"), elem_id=elem_id, interactive=True, **more)
        self._picked = gr.State(False)
        # What another tab fills to point at a checkpoint: its name, and True.
        self.pointed = [self.choice, self._picked]

    def wire(self, page: "Page", tab: str) -> None:
        # There as soon as the tab is opened; from then on it follows the look.
        page.on_load(self.on_look, [self.choice], inputs=self.pointed)
        page.on_wake(
            tab, lambda look, asked: _offered(look, asked.language), self.on_look, self.pointed, [self.choice],
            name=self._elem_id,
        )  # fmt: skip
        self.choice.input(lambda: True, None, self._picked, **QUIET)

    def on_look(self, request: gr.Request, value: str | None, picked: bool) -> Any:
        """Every checkpoint there is."""
        fitting, others = _offered(self._studio.look(), language_of(request))
        choices = [*fitting, *others]
        names = [name for _, name in choices]
        first = next((name for _, name in (choices if self._of_any_base else fitting)), None)
        return gr.update(choices=choices, value=value if picked and value in names else first)


def fitting(look: "Look") -> "list[tuple[Run, AdapterRef, bool]]":
    """Every checkpoint with its run, and whether it is one of the base that is there."""
    runs = {run.id: run for run in look.runs}
    resident = look.base.source, look.base.fingerprint
    own = ((runs[ref.run_id], ref) for ref in look.adapters)
    return [(run, ref, same_base((run.base.source, run.base.fingerprint), resident)) for run, ref in own]


def _offered(look: "Look", lang: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(words, name) of the checkpoints of the base that is there, and of the others."""
    own, others = [], []
    for run, ref, fits in fitting(look):
        words = adapter_label(run, ref, lang)
        if fits:
            own.append((words, ref.name))
        else:
            others.append((t("compare.other-base", lang, run=words, base=base_name(run.base.source, lang)), ref.name))
    return own, others


def adapter_label(run: "Run", ref: "AdapterRef", lang: str) -> str:
    """ "run 3 · best (step 300)"; of one that has answered, the step that it was kept at."""
    name, _, number = ref.checkpoint.partition("-")
    # A run without dev rows has no best step: its best is its last.
    steps = {"best": run.step if run.best_eval_loss is None else run.best_step, "last": run.step}
    step = ref.step or (int(number) if number else steps[name])
    where = t(f"compare.checkpoint.{name}", lang, step=f"{step:,}")
    return f"{run_name(run, lang)} · {where}"
