"""How runs begin: what the check says of one, a new one made ready and put into the queue, one that goes on.

Making a run ready may take a while, and no look waits for it. Knows no page, no words and no database.
"""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from glmstudio.data.example import Example
from glmstudio.data.kept_rows import RowSet, RowsMovedOnError
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio.base_slot import BaseSlot, Use
from glmstudio.studio.probes import Probing
from glmstudio.studio.row_counting import CountUnderWay, RowCounting
from glmstudio.studio.run_queue import RunQueue
from glmstudio.training import resume
from glmstudio.training.from_adapter import Starts
from glmstudio.training.prepare import Measure, Plan, RunWish, choose, plan_run, prepared_run
from glmstudio.training.runs import RunFolder, new_run_id
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.data.snapshot import Snapshot
    from glmstudio.models.resident import Resident
    from glmstudio.training.probe import Probe

# So many versions of rows are kept that a check was of; those that follow each other share nearly everything.
CHECKS_KEPT = 16
# (train, dev) of a dataset.
Rows = Callable[[str], tuple[list[Example], list[Example]]]


@dataclass(frozen=True)
class Preparing:
    """A run that is made ready: of which dataset, the stage as `prepare.OnStage` hears it, before that loading, `done`
    of `total` rows."""

    dataset: str
    stage: str = "freezing"
    done: int = 0
    total: int = 0


class RunStarts:
    """`rows` gives those of a dataset that are done, `counting` what is known of them without their texts, `asked` the
    keys of `run.yaml` that name base and dataset."""

    def __init__(
        self,
        workspace: Workspace,
        base: BaseSlot,
        queue: RunQueue,
        probing: Probing,
        rows: Rows,
        counting: RowCounting,
        asked: Callable[[str, str], dict[str, str]],
    ) -> None:
        self._workspace, self._base, self._queue, self._probing = workspace, base, queue, probing
        self._rows, self._counting, self._asked = rows, counting, asked
        self.adapters = Starts(workspace.checkpoints)
        self.preparing: Preparing | None = None
        self._lock = threading.Lock()
        self._checked: OrderedDict[str, RowSet] = OrderedDict()

    def plan(
        self,
        dataset: str,
        lora: LoraSettings,
        settings: TrainingSettings,
        from_adapter: str,
        seconds: float | None = None,
    ) -> Plan:
        """What the check says now; without an estimate while the base is loading or being measured. Where rows have to
        be counted for longer than so many seconds, the error `rows-counted` is all that it says."""
        while True:
            with suppress(RowsMovedOnError), self._base.use_if_ready() as use:
                resident = use.resident if use else None
                start, refused = self.adapters.look(from_adapter, resident)
                base = resident.base if resident else None
                asked = (base.tokenizer, base.family) if base else (None, None)
                _, applied = start.applied(lora, settings) if start else (lora, settings)
                rows = self._counting.rows(dataset, *asked, applied.prompt_style, seconds)
                if isinstance(rows, CountUnderWay):
                    waits = Finding("rows-counted", "error", params={"percent": rows.percent})
                    return Plan(lora, settings, [waits])
                plan = plan_run(
                    resident, rows, lora, settings, measure=self._asking(resident), start=start, known=refused,
                    sizes=partial(self._counting.counts.sizes, *asked, rows),
                )  # fmt: skip
                plan = replace(plan, checked=self._keep(rows))
                return plan if resident else self._once_loaded(plan)

    def _once_loaded(self, plan: Plan) -> Plan:
        """A base that a start loads, or that comes for one, keeps nobody from starting."""
        if self._base.status().state != "released" and (self.preparing is None or self.preparing.stage != "loading"):
            return plan
        findings = [found for found in plan.findings if found.code != "base-not-ready"]
        return replace(plan, findings=[*findings, Finding("base-released", "info")])

    def start(
        self,
        dataset: str,
        lora: LoraSettings,
        settings: TrainingSettings,
        *,
        queue: bool,
        from_adapter: str,
        checked: str,
        tell: Callable[[Finding], None],
    ) -> str:
        """A new run's id. `tell` hears `rows-moved` where the rows are no longer those of the plan that was `checked`.

        Raises StudioError as `BaseSlot.resident` does, `run-refused` (with the findings), `disk-full-start`,
        `queue-elsewhere` and, without `queue`, `run-active` and `run-starting`.
        """
        with self._held(dataset) as use, self._queue.preparing(now=not queue):
            try:
                self._stage(dataset)
                start, refused = self.adapters.look(from_adapter, use.resident)
                asked = self._asked(dataset, from_adapter)
                wish = RunWish(dataset, *self._rows(dataset), lora, settings, asked, start, known=refused)
                # Nothing is measured beside a run that trains: then it is at this one's turn.
                measure = (self._asking if self._queue.active_id else self._measuring)(use.resident)
                with prepared_run(
                    wish, use.resident, self._workspace.snapshots, measure=measure,
                    on_stage=lambda *now: self._stage(dataset, *now),
                ) as ready:  # fmt: skip
                    run_id = new_run_id(self._workspace.checkpoints)
                    ready.write(RunFolder(self._workspace.run_folder(run_id)))
                    self._queue.add(run_id, now=not queue)
                    if count := self._moved(dataset, checked, ready.rows):
                        tell(Finding("rows-moved", "warning", count, params={"dataset": dataset}))
                return run_id
            finally:
                self.preparing = None

    def resume(self, run_id: str, *, queue: bool) -> None:
        """Goes on with a run. Raises StudioError as `BaseSlot.resident` does, `queue-elsewhere`, `snapshot-missing`,
        `snapshot-changed`, those of `reopen` and, without `queue`, `run-active` and `run-starting`."""
        folder = RunFolder(self._workspace.run_folder(run_id))
        run = resume.last_sitting(folder)
        with self._held(run.dataset) as use, self._queue.preparing(now=not queue):
            resume.last_sitting(folder)
            folder.rows(self._workspace.snapshots)
            resume.reopen(folder, use.resident.base)
            self._queue.add(run_id, now=not queue, go_on=True)

    def choose(self, folder: RunFolder, frozen: "Snapshot", resident: "Resident") -> None:
        """Chooses at a run's turn what was left open when it was queued."""
        choose(folder, frozen, resident, self._measuring(resident))

    @contextmanager
    def _held(self, dataset: str) -> Iterator[Use]:
        """The base, which cannot be exchanged meanwhile; one that was let go of is loaded first."""
        loading = Preparing(dataset, "loading")
        if self._base.status().state == "released":
            self.preparing = loading
        try:
            with self._base.use(load=True, refusal=StudioError("run-starting")) as use:
                yield use
        finally:
            # Another start may stand there by now.
            if self.preparing is loading:
                self.preparing = None

    def _keep(self, rows: RowSet) -> str:
        """A name for rows that a check was of."""
        with self._lock:
            name = next((name for name, kept in self._checked.items() if kept is rows), "") or uuid.uuid4().hex
            self._checked[name] = rows
            self._checked.move_to_end(name)
            while len(self._checked) > CHECKS_KEPT:
                self._checked.popitem(last=False)
            return name

    def _moved(self, dataset: str, checked: str, rows: RowSet) -> int:
        """How many of the rows are not as they were then."""
        former = self._checked.get(checked)
        return 0 if former is None or self._counting.unchanged(dataset, former) else rows.differing(former)

    def _stage(self, dataset: str, *now: Any) -> None:
        self.preparing = Preparing(dataset, *now)

    def _asking(self, resident: "Resident | None") -> Measure:
        return lambda *kind: _known(self._probing.ask(resident, *kind))

    def _measuring(self, resident: "Resident") -> Measure:
        return lambda *kind: _known(self._probing.measured(resident, *kind))


def _known(found: "Probe | StudioError | None") -> "Probe | None":
    if isinstance(found, StudioError):
        raise found.bare()
    return found
