"""Studio's verbs for bases and adapters: list, look at, use, ask, score, give away. Knows no page and no words."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from glmstudio.data.row_reader import Query
from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.models.prompts.encoding import MOST_COUNTED, TokenCount
from glmstudio.settings import GenerationSettings, TrainingSettings
from glmstudio.studio.asking import Asking
from glmstudio.studio.base_slot import BaseStatus, never
from glmstudio.studio.bases import ModelShelf, with_hub
from glmstudio.studio.exports import Exports
from glmstudio.studio.runs import RunVerbs
from glmstudio.studio.scoreboards import Scoreboards

if TYPE_CHECKING:
    from glmstudio.inference.compare import Comparison
    from glmstudio.models.inspection.doctor import Diagnosis
    from glmstudio.models.inspection.library import LocalBase
    from glmstudio.models.prompts.preview import Preview
    from glmstudio.models.resident import Resident
    from glmstudio.training.runs import Run


class ModelVerbs(RunVerbs):
    """The verbs over the resident base and what was trained on it."""

    _asking: Asking
    _shelf: ModelShelf
    _scoreboards: Scoreboards
    _exports: Exports

    # The base

    def base_status(self) -> BaseStatus:
        return self._base.status()

    def resident(self, *, wait: bool = False) -> "Resident":
        """The resident base; with `wait` it is loaded where nobody has begun. Raises as `BaseSlot.resident` does."""
        return self._base.resident(wait=wait)

    def devices(self) -> int:
        """How many devices of the base's kind this machine has; 1 until it is ready."""
        if not self.base_status().device.startswith("cuda"):
            return 1
        import torch

        return torch.cuda.device_count()

    def bases(self) -> "list[LocalBase]":
        """Every base on this machine, the embedded one first. Reads headers only."""
        return self._shelf.bases()

    def examine_base(self, source: str, hub: str = "") -> "Diagnosis":
        """What a base is and whether it would load, answer and train; a bare id is one of `hub`. Raises StudioError as
        `doctor.examine` does."""
        return self._shelf.examine(with_hub(source, hub))

    def use_base(self, source: str, quantization: str = "none", hub: str = "") -> None:
        """Puts another base in the place of the resident one; returns at once. Raises as `ModelShelf.use` does."""
        self._shelf.use(with_hub(source, hub), quantization)

    def release_base(self) -> None:
        """Lets go of the base, so that its memory is free: it is loaded again when somebody asks, trains or evaluates.
        Returns at once. Raises what keeps it from going: `run-active`, `run-starting`, `base-evaluates`."""
        self._shelf.release()

    def count_tokens(self, text: str, most: int = MOST_COUNTED) -> TokenCount | None:
        """Tokens of the first `most` characters of a text, without special ones; None until there is a base with a
        tokenizer."""
        with self._base.use_if_ready() as use:
            tokenizer = use.resident.base.tokenizer if use else None
            return TokenCount.of(tokenizer, text, most) if tokenizer is not None else None

    def preview(self, instruction: str, input: str, target: str, settings: TrainingSettings) -> "Preview":
        """A row token by token as the resident base is shown it. Raises StudioError as `resident` and rendering do."""
        from glmstudio.models.prompts.preview import preview_row

        with self._base.use() as use:
            base = use.resident.base
            return preview_row(base.tokenizer, base.family, instruction, input, target, settings)

    # Compare and evaluate

    def adapters(self) -> list[AdapterRef]:
        """Every finished checkpoint, the newest run first, `best` before `last` before the numbered ones."""
        return self._adapters_of(self._runs.look()[0])

    def _adapters_of(self, found: "Iterable[Run]") -> list[AdapterRef]:
        return [AdapterRef(run.id, name) for run in found for name in self.checkpoints(run.id)]

    def compare(
        self,
        instruction: str,
        input: str,
        ref: AdapterRef | None,
        settings: GenerationSettings,
        should_stop: Callable[[], bool] = never,
        *,
        prompt_style: str = "instruction",
    ) -> Iterator["Comparison"]:
        """Streams base and tuned answers from one batch. Both are asked in the style that the adapter was trained with;
        `prompt_style` is for the base alone. Each `Comparison` says in `adapter` which content of the checkpoint it is.

        Raises StudioError `answer-base-gone` at the end where another base was chosen meanwhile, and those of
        `BaseSlot.resident`, `Resident.holding` and generating."""
        return self._asking.compare(instruction, input, ref, settings, should_stop, prompt_style=prompt_style)

    def start_evaluation(self, dataset: str, adapter: str, settings: GenerationSettings) -> str:
        """Scores base and adapter (an `AdapterRef.name`) on the dataset's dev rows in the background.

        Gives the scoreboard's name. Raises StudioError `adapter-missing`, `evaluate-no-dev`, `evaluation-active`.
        """
        ref = next((ref for ref in self.adapters() if ref.name == adapter), None)
        if ref is None:
            raise StudioError("adapter-missing", folder=adapter)
        dev = list(self._store.iterate(Query(dataset=dataset, split="dev", status="done")))
        if not dev:
            raise StudioError("evaluate-no-dev", dataset=dataset)
        if self._base.status().state != "released":
            self.resident()
        return self._scoreboards.start(dataset, dev, ref, settings)

    def damaged(self) -> list[StudioError]:
        """What is wrong with each file of a run or an evaluation that cannot be read."""
        return [*self._runs.look()[1], *self._scoreboards.look()[1]]

    def start_export(self, kind: str, ref: AdapterRef, name: str, language: str) -> None:
        """Writes a checkpoint as one of `settings.EXPORT_KINDS`, with its content's newest scores in the README;
        returns at once. It goes below `checkpoints/exports`, under `name` where one is given. Raises StudioError
        `name-unfit`."""
        from glmstudio.models.adapters.adapter_version import adapter_version

        folder = self._workspace.run_folder(ref.run_id) / ref.checkpoint
        version = adapter_version(folder)
        board = self._scoreboards.of(dataclasses.replace(ref, digest=version.digest), version.changed_at)
        scores = board.as_asked if board else None
        where = self._exports.destination(kind, ref.run_id, ref.checkpoint, name)
        base, here = self.run(ref.run_id).base, self.base_status()
        # The folder that it was trained on may have moved since.
        known_here = bool(base.fingerprint) and base.fingerprint == here.fingerprint
        self._exports.start(kind, folder, here.source if known_here else base.source, where, scores, language)
