"""Studio: the verbs that the page and the command line share. Knows no gradio and no words.

Everything that outlives a click is here or on disk: the store, the resident base, the queue of runs.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio import faults
from glmstudio.data import imports, quality
from glmstudio.data.kept_rows import KeptRows
from glmstudio.data.store import Store
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio.asking import Asking
from glmstudio.studio.base_slot import BaseWish
from glmstudio.studio.bases import ModelShelf, slot_of
from glmstudio.studio.exports import Exports
from glmstudio.studio.jobs import BackgroundJob, Jobs
from glmstudio.studio.look import Look, Looks
from glmstudio.studio.models import ModelVerbs
from glmstudio.studio.people import OWNER, Person, asks_the_role
from glmstudio.studio.probes import Probing
from glmstudio.studio.row_counting import RowCounting
from glmstudio.studio.run_queue import RunQueue
from glmstudio.studio.run_starts import RunStarts
from glmstudio.studio.scoreboards import Scoreboards
from glmstudio.training import runs
from glmstudio.training.run_config import as_command, as_yaml
from glmstudio.training.run_list import RunList
from glmstudio.training.token_counts import TokenCounts
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.models.resident import Resident
    from glmstudio.training.prepare import Plan

DEMO_DATASET = "demo"


@asks_the_role
class Studio(ModelVerbs):
    """One workspace, one store, one resident base, one queue of runs, as one person may use them: made, the owner at
    the machine. Safe to call from several threads."""

    def __init__(self, workspace: Workspace, *, base: BaseWish | None = None) -> None:
        self._workspace = workspace.ensure()
        faults.keep_log(self._workspace.log)
        self._store = Store(workspace.database_url)
        self._base = slot_of(self._workspace.root, base or BaseWish())
        self._queue = RunQueue(self._workspace, self._trained_on, lambda *turn: self._starts.choose(*turn))
        self._probing = Probing(self._base.use, lambda: bool(self._queue.active_id) or self._queue.starting)
        self._counting = RowCounting(KeptRows(self._store), TokenCounts())
        self._starts = RunStarts(
            self._workspace, self._base, self._queue, self._probing, lambda name: self.training_rows(name),
            self._counting, self._asked,
        )  # fmt: skip
        self._runs = RunList(self._workspace.checkpoints)
        self._asking = Asking(self._base, self._workspace)
        self._jobs = Jobs()
        self._shelf = ModelShelf(self._workspace.root, self._base, self._jobs, self._refuse_switch)
        self._scoreboards = Scoreboards(self._workspace.checkpoints, self._asking.evaluate, self._jobs)
        self._exports = Exports(self._workspace.checkpoints, self._jobs)
        self._looks = Looks(self._looked)
        self._caller: Callable[[], Person] = lambda: OWNER

    def as_(self, person: Person | Callable[[], Person]) -> "Studio":
        """The same studio, called by that person, or by whom a function names at each call: what needs another role
        raises StudioError `not-allowed`, and the name goes into what is written."""
        same = copy.copy(self)
        same._caller = person if callable(person) else lambda: person
        return same

    @property
    def _person(self) -> Person:
        return self._caller()

    def start(self, *, load_base: bool = True) -> None:
        """Demo rows on the first start, broken imports removed, dead runs marked, waiting ones held, and (unless it is
        to wait) `load_base`."""
        self._queue.mine()
        self.remove_broken_imports()
        if not self._store.datasets():
            imports.take_demo(self._store, DEMO_DATASET)
        if load_base:
            self.load_base()

    def load_base(self) -> None:
        """Loads the base on a thread of its own."""
        self._base.load()

    def close(self) -> None:
        self._jobs.close(seconds=5)
        self._counting.close()
        self._probing.close(seconds=10)
        self._queue.close(seconds=30)
        self._store.close()

    @property
    def former_database(self) -> Path | None:
        """Where the database of an older version was kept when this one was made of it; None where none was."""
        return self._store.copy

    # Jobs

    def job(self, kind: str) -> BackgroundJob | None:
        """The one of this kind under way, or the last one."""
        return self._jobs.now(kind)

    def stop_job(self, job_id: str) -> None:
        """Asks that job to end, where it is under way; returns at once. What a download has got and the rows that an
        evaluation has answered are kept; of an export nothing is left."""
        self._jobs.stop(job_id)

    # Looks

    def look(self, *, fresh: bool = False) -> Look:
        """Everything that pages show: the last second's picture, with `fresh` one of now."""
        return self._looks.look(fresh=fresh)

    def _looked(self) -> Look:
        # The active one first: a run that ends meanwhile is still shown as active, and not as gone.
        active, queue = self.active_run(), self._queue
        found, damaged = self._runs.look()
        boards, damaged_boards = self._scoreboards.look()
        return Look(
            self._base.status(), tuple(found), tuple(self._adapters_of(found)), tuple(boards), tuple(damaged),
            tuple(damaged_boards), active, *queue.latest_progress(), queue.state(), self._starts.preparing,
            tuple(self._jobs.all()), self._probing.active, self._probing.count, self._counting.active,
            (self._store.changes.all(), self._counting.version),
        )  # fmt: skip

    def _refuse_switch(self) -> None:
        if run_id := self._queue.active_id:
            raise StudioError("run-active", run=run_id)

    @contextmanager
    def _trained_on(self, run_id: str) -> Iterator["Resident"]:
        with self._base.use(wait=True, refusal=StudioError("run-active", run=run_id)) as use:
            yield use.resident

    # Train

    def plan_run(
        self,
        dataset: str,
        lora: LoraSettings,
        settings: TrainingSettings,
        from_adapter: str = "",
        *,
        seconds: float | None = None,
    ) -> "Plan":
        """Everything that is wrong or worth knowing before a start, at once, and what the run would take; no estimate
        where something is wrong, and while the base is loading or being measured.

        Where rows have to be counted for longer than so many seconds, the error `rows-counted` is all that is found:
        `Look.rows` changes when there is more to tell.
        """
        return self._starts.plan(dataset, lora, settings, from_adapter, seconds)

    def start_values(self, from_adapter: str) -> "dict[str, Any]":
        """The settings that a run has which begins with that adapter. Raises StudioError as `read_start` does."""
        return dict(self._starts.adapters.read(from_adapter, self.resident()).values)

    @property
    def probing(self) -> bool:
        """Whether the base is being measured for `plan_run`."""
        return self._probing.active

    def start_run(
        self,
        dataset: str,
        lora: LoraSettings,
        settings: TrainingSettings,
        *,
        queue: bool = False,
        from_adapter: str = "",
        checked: str = "",
        tell: Callable[[quality.Finding], None] = lambda finding: None,
    ) -> runs.Run:
        """Freezes the rows, writes the run folder, starts the run; with `queue` it waits for the runs before it, with
        `from_adapter` (a path or an `AdapterRef.name`) its adapter starts as that one. A look tells meanwhile how far
        it is. With `checked`, that of the `Plan` that a person has seen, `tell` hears how many rows have changed since:
        the run takes them as they are now.

        A base that was let go of is loaded first. Raises StudioError as `RunStarts.start` does.
        """
        run_id = self._starts.start(
            dataset, lora, settings, queue=queue, from_adapter=from_adapter, checked=checked, tell=tell
        )
        return self.run(run_id)

    def resume_run(self, run_id: str, *, queue: bool = False) -> runs.Run:
        """Goes on with a run that was stopped, failed or broke off, from its newest checkpoint; with `queue` at its
        turn.

        A base that was let go of is loaded first. Raises StudioError as `RunStarts.resume` does.
        """
        self._starts.resume(run_id, queue=queue)
        return self.run(run_id)

    def command_line(self, dataset: str, lora: LoraSettings, settings: TrainingSettings, from_adapter: str = "") -> str:
        """The command that trains the same run without the page."""
        return as_command(self._asked(dataset, from_adapter), lora, settings)

    def run_yaml(self, dataset: str, lora: LoraSettings, settings: TrainingSettings, from_adapter: str = "") -> str:
        """The same run as a file for the command's `--config`."""
        return as_yaml(self._asked(dataset, from_adapter), lora, settings)

    def _asked(self, dataset: str, from_adapter: str) -> dict[str, str]:
        wish = dataclasses.asdict(self._base.wish) | {"source": self.base_status().source}
        root, begun = str(self._workspace.root.absolute()), self._starts.adapters.asked(from_adapter)
        return {"base": wish.pop("source"), **wish, "root": root, "dataset": dataset, **begun}
