"""Studio: the verbs that the page and the command line share. Knows no gradio and no words.

Everything that outlives a click is here or on disk: the store, the resident base, the queue of runs.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from glmstudio import faults
from glmstudio.data import imports, quality, snapshot
from glmstudio.data.example import Example
from glmstudio.data.store import Query, Store
from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings, recommended
from glmstudio.studio.asking import Asking
from glmstudio.studio.base_slot import BaseSlot, BaseStatus, BaseWish
from glmstudio.studio.bases import ModelShelf
from glmstudio.studio.exports import Exports
from glmstudio.studio.jobs import BackgroundJob, Jobs
from glmstudio.studio.probes import Probing
from glmstudio.studio.rows import RowVerbs
from glmstudio.studio.run_queue import RunQueue, Waiting
from glmstudio.studio.scoreboards import Scoreboards
from glmstudio.training import metrics, resume, runs
from glmstudio.training.check import optimizer_steps
from glmstudio.training.disk_space import full_disk_told
from glmstudio.training.from_adapter import Starts
from glmstudio.training.row_ids import keep_row_ids
from glmstudio.training.run_config import as_command, as_yaml, write_yaml
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.inference.compare import Comparison
    from glmstudio.models.prompts.preview import Preview
    from glmstudio.models.resident import Resident
    from glmstudio.training.estimate import Estimate
    from glmstudio.training.train import Progress

DEMO_DATASET = "demo"


def never() -> bool:
    """The `should_stop` of work that nothing stops."""
    return False


class Studio(RowVerbs):
    """One workspace, one store, one resident base, one queue of runs. Safe to call from several threads."""

    def __init__(self, workspace: Workspace, *, base: BaseWish | None = None) -> None:
        self.workspace = workspace.ensure()
        faults.keep_log(self.workspace.log)
        super().__init__(Store(workspace.database_url))
        self._base = BaseSlot(base or BaseWish())
        self.queue = RunQueue(self.workspace, self._trained_on)
        self._starts = Starts(self.workspace.checkpoints)
        self._probing = Probing(self._base.use, lambda: bool(self.queue.active_id))
        self._runs = runs.RunList(self.workspace.checkpoints)
        self._asking = Asking(self._base, self.workspace)
        self._jobs = Jobs()
        self.shelf = ModelShelf(self.workspace.root, self._base, self._jobs, self._refuse_switch)
        self.scoreboards = Scoreboards(self.workspace.checkpoints, self.evaluate, self._jobs)
        self.exports = Exports(self.workspace.checkpoints, self._jobs)

    def start(self, *, load_base: bool = True) -> None:
        """Demo rows on the first start, broken imports removed, dead runs marked, waiting ones held, and (unless it is
        to wait) `load_base`."""
        self.queue.mine()
        self.remove_broken_imports()
        if not self.store.datasets():
            imports.take_demo(self.store, DEMO_DATASET)
        if load_base:
            self.load_base()

    def load_base(self) -> None:
        """Loads the base on a thread of its own."""
        self._base.load()

    def close(self) -> None:
        self._jobs.close(seconds=5)
        self._probing.close(seconds=10)
        self.queue.close(seconds=30)
        self.store.close()

    # Jobs

    def jobs(self) -> list[BackgroundJob]:
        """Of each kind the one under way, or the last one; the newest last."""
        return self._jobs.all()

    def job(self, kind: str) -> BackgroundJob | None:
        """The one of this kind under way, or the last one."""
        return self._jobs.now(kind)

    @property
    def jobs_version(self) -> int:
        """Changes with everything that `jobs` would tell."""
        return self._jobs.version

    def stop_job(self, job_id: str) -> None:
        """Asks that job to end, where it is under way; returns at once. What a download has got and the rows that an
        evaluation has answered are kept; of an export nothing is left."""
        self._jobs.stop(job_id)

    # The base

    def base_status(self) -> BaseStatus:
        return self._base.status()

    def resident(self, *, wait: bool = False) -> "Resident":
        """The resident base. Raises StudioError `base-loading` (unless `wait`) or what made the loading fail."""
        return self._base.resident(wait=wait)

    def devices(self) -> int:
        """How many devices of the base's kind this machine has; 1 until it is ready."""
        if not self.base_status().device.startswith("cuda"):
            return 1
        import torch

        return torch.cuda.device_count()

    def _refuse_switch(self) -> None:
        if run_id := self.queue.active_id:
            raise StudioError("run-active", run=run_id)

    @contextmanager
    def _trained_on(self, run_id: str) -> Iterator["Resident"]:
        with self._base.use(wait=True, refusal=StudioError("run-active", run=run_id)) as use:
            yield use.resident

    def count_tokens(self, text: str) -> int | None:
        """Tokens of a text without special ones; None until there is a base with a tokenizer."""
        with self._base.use_if_ready() as use:
            tokenizer = use.resident.base.tokenizer if use else None
            return len(tokenizer.encode(text, add_special_tokens=False)) if tokenizer is not None else None

    def preview(self, instruction: str, input: str, target: str, settings: TrainingSettings) -> "Preview":
        """A row token by token as the resident base is shown it. Raises StudioError as `resident` and rendering do."""
        from glmstudio.models.prompts.preview import preview_row

        with self._base.use() as use:
            base = use.resident.base
            return preview_row(base.tokenizer, base.family, instruction, input, target, settings)

    # Train

    def training_rows(self, dataset: str) -> tuple[list[Example], list[Example]]:
        """(train, dev): the rows that are done."""
        train, dev = (
            list(self.store.iterate(Query(dataset=dataset, split=split, status="done"))) for split in ("train", "dev")
        )
        return train, dev

    def plan_run(
        self, dataset: str, lora: LoraSettings, settings: TrainingSettings, from_adapter: str = ""
    ) -> "tuple[list[quality.Finding], Estimate | None]":
        """(everything that is wrong or worth knowing before a start, at once, what the run would take); None of that
        where something is wrong, and while the base is loading or being measured."""
        from glmstudio.training.check import check

        rows = self.training_rows(dataset)
        with self._base.use_if_ready() as use:
            findings, lora, settings = self._starts.applied(from_adapter, use and use.resident, lora, settings)
            findings += check(use.resident.base if use else None, *rows, lora, settings)
            if use is None or any(finding.severity == "error" for finding in findings):
                return findings, None
            from glmstudio.training.estimate import most_tokens, planned, unmeasured

            most = most_tokens(use.resident.base, rows[0], settings)
            probe = self._probing.ask(use.resident, lora, settings, most)
            if probe is None:
                return findings, None
            if isinstance(probe, StudioError):
                return [unmeasured(probe), *findings], None
            short, estimate = planned(use.resident, probe, *rows, settings)
            return [*short, *findings], estimate

    def start_values(self, from_adapter: str) -> "dict[str, Any]":
        """The settings that a run has which begins with that adapter. Raises StudioError as `read_start` does."""
        return dict(self._starts.read(from_adapter, self.resident()).values)

    @property
    def probing(self) -> bool:
        """Whether the base is being measured for `plan_run`."""
        return self._probing.active

    @property
    def probed(self) -> int:
        """Changes when `plan_run` knows more than before."""
        return self._probing.count

    def start_run(
        self,
        dataset: str,
        lora: LoraSettings,
        settings: TrainingSettings,
        *,
        queue: bool = False,
        from_adapter: str = "",
    ) -> runs.Run:
        """Freezes the rows, writes the run folder, starts the run; with `queue` it waits for the runs before it, with
        `from_adapter` (a path or an `AdapterRef.name`) its adapter starts as that one.

        Raises StudioError `base-loading`, `run-refused` (with the findings), `disk-full-start`, `queue-elsewhere` and,
        without `queue`, `run-active`.
        """
        with self._base.use(refusal=StudioError("run-starting")) as use:
            findings, chosen = self.plan_run(dataset, lora, settings, from_adapter)
            if errors := [found for found in findings if found.severity == "error"]:
                raise StudioError("run-refused", findings=errors)
            _, lora, settings = self._starts.applied(from_adapter, use.resident, lora, settings)

            def prepare() -> Waiting:
                frozen = snapshot.freeze(*self.training_rows(dataset), self.workspace.snapshots)
                run_id = runs.new_run_id(self.workspace.checkpoints)
                folder = runs.RunFolder(self.workspace.run_folder(run_id))
                folder.create(
                    snapshot_id=frozen.id, dataset=dataset, base=use.resident.base, lora=lora, settings=settings,
                    total=optimizer_steps(len(frozen.train), settings),
                )  # fmt: skip
                if chosen:
                    folder.update(token_budget=chosen.token_budget, checkpointing=chosen.gradient_checkpointing)
                self._starts.keep(from_adapter, folder)
                asked = self._asked(dataset, from_adapter) | {"snapshot_id": frozen.id}
                write_yaml(folder.path, asked, lora, settings)
                keep_row_ids(folder.path, frozen.train)
                return Waiting(run_id)

            with full_disk_told(self.workspace.checkpoints, "disk-full-start"):
                return self.run(self.queue.add(prepare, now=not queue))

    def resume_run(self, run_id: str, *, queue: bool = False) -> runs.Run:
        """Goes on with a run that was stopped, failed or broke off, from its newest checkpoint; with `queue` at its
        turn.

        Raises StudioError `base-loading`, `queue-elsewhere`, `snapshot-missing`, `snapshot-changed`, those of `reopen`
        and, without `queue`, `run-active`.
        """
        with self._base.use(refusal=StudioError("run-starting")) as use:

            def prepare() -> Waiting:
                folder = runs.RunFolder(self.workspace.run_folder(run_id))
                resume.last_sitting(folder)
                folder.rows(self.workspace.snapshots)
                resume.reopen(folder, use.resident.base)
                return Waiting(run_id, go_on=True)

            return self.run(self.queue.add(prepare, now=not queue))

    def begins_anew(self, run_id: str) -> quality.Finding | None:
        """Why `resume_run` would begin at the first step again; None where it would not."""
        return resume.begins_anew(runs.RunFolder(self.workspace.run_folder(run_id)))

    def start_queue(self) -> None:
        """Lets the runs go on that wait since a restart. Raises StudioError `base-loading` as `resident` does."""
        self.resident()
        self.queue.go()

    def stop_run(self, run_id: str) -> None:
        self.queue.stop(run_id)

    def pause_run(self, run_id: str) -> None:
        self.queue.pause(run_id)

    def continue_run(self, run_id: str) -> None:
        self.queue.go_on(run_id)

    def runs(self) -> list[runs.Run]:
        """Newest first."""
        return self._runs.look()[0]

    def damaged_runs(self) -> list[StudioError]:
        """What is wrong with each `run.json` that cannot be read; the others go on."""
        return self._runs.look()[1]

    def damaged(self) -> list[StudioError]:
        """What is wrong with each file of a run or an evaluation that cannot be read."""
        return [*self.damaged_runs(), *self.scoreboards.look()[1]]

    def run(self, run_id: str) -> "runs.Run":
        return runs.RunFolder(self.workspace.run_folder(run_id)).read()

    def active_run(self) -> "runs.Run | None":
        """None, too, where its `run.json` cannot be read any more."""
        run_id = self.queue.active_id
        try:
            return self.run(run_id) if run_id else None
        except StudioError:
            return None

    def progress(self, run_id: str) -> "Progress | None":
        """The latest progress of a run that this process trains or trained; None otherwise."""
        return self.queue.progress(run_id)

    def metrics(self, run_id: str, offset: int = 0) -> tuple[list[metrics.MetricRecord], int]:
        """The whole records after `offset` bytes and the next offset."""
        return metrics.read_from(runs.RunFolder(self.workspace.run_folder(run_id)).metrics_path, offset)

    def checkpoints(self, run_id: str) -> list[str]:
        return runs.RunFolder(self.workspace.run_folder(run_id)).checkpoints()

    def default_settings(self, preset: str = "standard", method: str = "lora") -> TrainingSettings:
        return recommended(preset, demonstration=self.base_status().demonstration, method=method)

    def command_line(self, dataset: str, lora: LoraSettings, settings: TrainingSettings, from_adapter: str = "") -> str:
        """The command that trains the same run without the page."""
        return as_command(self._asked(dataset, from_adapter), lora, settings)

    def run_yaml(self, dataset: str, lora: LoraSettings, settings: TrainingSettings, from_adapter: str = "") -> str:
        """The same run as a file for the command's `--config`."""
        return as_yaml(self._asked(dataset, from_adapter), lora, settings)

    def _asked(self, dataset: str, from_adapter: str) -> dict[str, str]:
        wish = dataclasses.asdict(self._base.wish) | {"source": self.base_status().source}
        root, begun = str(self.workspace.root.absolute()), self._starts.asked(from_adapter)
        return {"base": wish.pop("source"), **wish, "root": root, "dataset": dataset, **begun}

    # Compare and evaluate

    def adapters(self) -> list[AdapterRef]:
        """Every finished checkpoint, the newest run first, `best` before `last` before the numbered ones."""
        return [AdapterRef(run.id, name) for run in self.runs() for name in self.checkpoints(run.id)]

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
        `resident`, `Resident.holding` and generating."""
        return self._asking.compare(instruction, input, ref, settings, should_stop, prompt_style=prompt_style)

    def evaluate(
        self,
        examples: list[Example],
        ref: AdapterRef | None,
        settings: GenerationSettings,
        on_progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] = never,
        *,
        prompt_style: str = "instruction",
    ) -> dict[str, Any]:
        """Scores and whole answers of base and adapter on the examples, asked as `compare` asks, and `answered_by`."""
        return self._asking.evaluate(examples, ref, settings, on_progress, should_stop, prompt_style=prompt_style)

    def start_evaluation(self, dataset: str, adapter: str, settings: GenerationSettings) -> str:
        """Scores base and adapter (an `AdapterRef.name`) on the dataset's dev rows in the background.

        Gives the scoreboard's name. Raises StudioError `adapter-missing`, `evaluate-no-dev`, `evaluation-active`.
        """
        ref = next((ref for ref in self.adapters() if ref.name == adapter), None)
        if ref is None:
            raise StudioError("adapter-missing", folder=adapter)
        _, dev = self.training_rows(dataset)
        if not dev:
            raise StudioError("evaluate-no-dev", dataset=dataset)
        self.resident()
        return self.scoreboards.start(dataset, dev, ref, settings)

    def start_export(self, kind: str, ref: AdapterRef, name: str, language: str) -> None:
        """Writes a checkpoint as one of `exports.KINDS`, with its content's newest scores in the README; returns at
        once. It goes below `checkpoints/exports`, under `name` where one is given. Raises StudioError `name-unfit`."""
        from glmstudio.models.adapters.adapter_version import adapter_version

        folder = self.workspace.run_folder(ref.run_id) / ref.checkpoint
        version = adapter_version(folder)
        board = self.scoreboards.of(dataclasses.replace(ref, digest=version.digest), version.changed_at)
        scores = board.as_asked if board else None
        where = self.exports.destination(kind, ref.run_id, ref.checkpoint, name)
        base, here = self.run(ref.run_id).base, self.base_status()
        # The folder that it was trained on may have moved since.
        known_here = bool(base.fingerprint) and base.fingerprint == here.fingerprint
        self.exports.start(kind, folder, here.source if known_here else base.source, where, scores, language)
