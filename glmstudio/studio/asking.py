"""The resident base and a run's checkpoint asked: one prompt side by side, or a set of rows. Knows no page, no words.

An answer is one model's from its first token to its last: base and weights are held until it ends, and whoever has
answered is said with it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from glmstudio.data.example import Example
from glmstudio.data.verdicts import Answerer
from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings
from glmstudio.studio.base_slot import BaseSlot, Use, never
from glmstudio.studio.jobs import Report
from glmstudio.studio.run_thread import nothing
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.inference.compare import Comparison
    from glmstudio.models.adapters.adapter_version import AdapterPrompt


@dataclasses.dataclass(frozen=True)
class Asked:
    """`names` of the rows to ask for each prompt, how to ask, and which content of which checkpoint it is."""

    names: list[str]
    prompt: "AdapterPrompt"
    ref: AdapterRef | None


class Asking:
    """Asks the base in `slot`; the checkpoints are those of `workspace`."""

    def __init__(self, slot: BaseSlot, workspace: Workspace) -> None:
        self._slot, self._workspace = slot, workspace

    def compare(
        self,
        instruction: str,
        input: str,
        ref: AdapterRef | None,
        settings: GenerationSettings,
        should_stop: Callable[[], bool],
        *,
        prompt_style: str,
    ) -> Iterator["Comparison"]:
        """As `Studio.compare`."""
        from glmstudio.inference.compare import compare

        waiting = self._slot.use(load=True, should_stop=should_stop)
        with waiting as use, self._holding(use, ref, prompt_style) as asked:
            base, settings = use.resident.base, asked.prompt.answered(settings)
            adapter = (asked.ref.name, asked.ref.digest) if asked.ref else ("", "")
            how = dataclasses.asdict(settings) | {"max_source_length": asked.prompt.max_source_length}
            answerer = Answerer(base.source, base.fingerprint, *adapter, asked.prompt.style, how)
            for comparison in compare(
                use.resident, asked.names, instruction, input, settings,
                max_source_length=asked.prompt.max_source_length, style=asked.prompt.style,
                should_stop=lambda: use.leaving() or should_stop(),
            ):  # fmt: skip
                yield dataclasses.replace(comparison, adapter=asked.ref, answerer=answerer)
            if use.leaving():
                raise StudioError("answer-base-gone", source=use.resident.base.source)

    def evaluate(
        self,
        examples: list[Example],
        ref: AdapterRef | None,
        settings: GenerationSettings,
        report: Report = nothing,
        should_stop: Callable[[], bool] = never,
    ) -> dict[str, Any]:
        """Scores and whole answers of base and adapter on the examples, asked as `compare` asks, and `answered_by`.
        The stage `load` is that of a base that is waited for."""
        from glmstudio.evaluation.evaluate import answered_by, evaluate

        refusal = StudioError("base-evaluates", adapter=ref.name if ref else "–")
        if self._slot.status().state != "ready":
            report(0, len(examples), "load")
        waiting = self._slot.use(load=True, should_stop=should_stop, refusal=refusal)
        with waiting as use, self._holding(use, ref) as asked:
            scores = evaluate(
                use.resident, asked.names, examples, asked.prompt.answered(settings),
                max_source_length=asked.prompt.max_source_length, style=asked.prompt.style,
                on_progress=report, should_stop=should_stop,
            )  # fmt: skip
            return scores | {"answered_by": answered_by(use.resident.base, asked.prompt, asked.ref)}

    @contextmanager
    def _holding(self, use: Use, ref: AdapterRef | None, style: str = "instruction") -> Iterator[Asked]:
        """The checkpoint as it is now, to be asked as it was trained; without one the base alone, in `style`."""
        from glmstudio.models.adapters.adapter_version import AdapterPrompt
        from glmstudio.models.resident import BASE_NAME

        if ref is None:
            yield Asked([BASE_NAME], AdapterPrompt(style), None)
            return
        with use.resident.holding(self._workspace.run_folder(ref.run_id) / ref.checkpoint) as version:
            found = dataclasses.replace(ref, digest=version.digest, step=version.step)
            yield Asked([BASE_NAME, version.digest], version.prompt, found)
