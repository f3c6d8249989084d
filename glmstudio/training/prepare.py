"""A run made ready to train, by one function for page, command line and the first of several processes: its rows are
frozen → rendered once into the snapshot's token cache → checked → its memory estimated → its folder written.

What is refused leaves nothing behind. Knows no database, no queue and no words.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.data.kept_rows import RowSet
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.check import check, optimizer_steps
from glmstudio.training.disk_space import full_disk_told
from glmstudio.training.from_adapter import Start, given, keep_start
from glmstudio.training.row_ids import keep_row_ids
from glmstudio.training.run_config import write_yaml
from glmstudio.training.runs import Run, RunFolder

if TYPE_CHECKING:
    from glmstudio.models.chat_format import Rendered
    from glmstudio.models.resident import Resident
    from glmstudio.training.estimate import Estimate
    from glmstudio.training.probe import Probe
    from glmstudio.training.token_counts import RowSizes

# What this kind of adapter costs in a run with at most so many tokens at a time; None where nobody can measure it now.
# Raises StudioError where it cannot be measured at all.
Measure = Callable[[LoraSettings, TrainingSettings, int], "Probe | None"]
# (stage, how much of it is done, of how much): freezing, checking, rendering (rows), measuring.
OnStage = Callable[..., None]


def nothing(*_: Any) -> None:
    """What happens where nobody listens."""


@dataclass(frozen=True)
class Plan:
    """What the check says of a run and how it would be trained: `estimate` is None where something is wrong and where
    nobody measured; with `measurable` somebody can still do so. `checked` names the rows for who is to start the run.
    """

    lora: LoraSettings
    settings: TrainingSettings
    findings: list[Finding]
    estimate: "Estimate | None" = None
    measurable: bool = False
    checked: str = ""

    @property
    def errors(self) -> list[Finding]:
        return [found for found in self.findings if found.severity == "error"]

    @property
    def chosen(self) -> dict[str, Any]:
        """The fields of `Run` that the settings may leave open. Where nobody measured, the budget is as it was set and
        gradient checkpointing that is "auto" is on: a slow run is better than one that breaks off."""
        if self.estimate is None:
            wish = self.settings.gradient_checkpointing
            open_yet = {"undecided": self.measurable}
            return {"token_budget": self.settings.token_budget, "checkpointing": wish != "off", **open_yet}
        found = self.estimate
        return {"token_budget": found.token_budget, "checkpointing": found.gradient_checkpointing}


def plan_run(
    resident: "Resident | None",
    rows: RowSet,
    lora: LoraSettings,
    settings: TrainingSettings,
    *,
    measure: Measure,
    sizes: "Callable[[TrainingSettings], RowSizes]",
    start: Start | None = None,
    said: Iterable[str] | None = None,
    known: Sequence[Finding] = (),
) -> Plan:
    """Everything that is wrong or worth knowing before a start, at once, and what the run would take.

    `sizes` gives those of the rows with certain settings, where the base can be asked. `said` names the settings that a
    person has chosen, where that is not all of them; those of the adapter in `start` take their place. `known` is what
    is wrong already. Raises RowsMovedOnError where rows of a dataset have changed since they were looked at.
    """
    base, findings = resident.base if resident is not None else None, [*known]
    if start is not None and base is not None:
        findings += start.findings(base, given(lora, settings, names=said))
        lora, settings = start.applied(lora, settings)
    counted = functools.cache(lambda: sizes(settings))
    findings += check(base, rows, lora, settings, counted)
    plan = Plan(lora, settings, findings)
    return plan if resident is None or plan.errors else _estimated(plan, resident, counted(), measure)


def _estimated(plan: Plan, resident: "Resident", sizes: "RowSizes", measure: Measure) -> Plan:
    from glmstudio.training import estimate

    try:
        probe = measure(plan.lora, plan.settings, estimate.most_tokens(sizes, plan.settings))
    except StudioError as error:
        return dataclasses.replace(plan, findings=[estimate.unmeasured(error), *plan.findings])
    if probe is None:
        return dataclasses.replace(plan, measurable=True)
    short, found = estimate.planned(resident, probe, sizes, plan.settings)
    return dataclasses.replace(plan, findings=[*short, *plan.findings], estimate=found)


def choose(folder: RunFolder, frozen: snapshot.Snapshot, resident: "Resident", measure: Measure) -> None:
    """Chooses for a run that is to train now what nobody could measure when it was written. Raises StudioError as
    rendering does."""
    run = folder.read()
    if run.undecided:
        plan = Plan(run.lora, run.settings, [])
        plan = _estimated(plan, resident, _rendered(frozen, resident, run.settings, nothing), measure)
        folder.update(**{**plan.chosen, "undecided": False})


@dataclass(frozen=True)
class RunWish:
    """The run that somebody asks for. `dataset` is what its rows are called, `asked` are the keys of `run.yaml` that
    are no settings, the rest is as `plan_run` takes it."""

    dataset: str
    train: Sequence[Example]
    dev: Sequence[Example]
    lora: LoraSettings
    settings: TrainingSettings
    asked: Mapping[str, str]
    start: Start | None = None
    said: Iterable[str] | None = None
    known: Sequence[Finding] = ()


class Prepared:
    """A run that can be written: its rows are frozen and rendered, and nothing is wrong with it."""

    def __init__(
        self, wish: RunWish, frozen: snapshot.Snapshot, rows: RowSet, plan: Plan, resident: "Resident"
    ) -> None:
        self.frozen, self.rows, self.plan = frozen, rows, plan
        self._wish, self._base = wish, resident.base
        self.traces = ExitStack()

    def write(self, folder: RunFolder, *, overwrite: bool = False) -> Run:
        """Writes the run's folder. Raises StudioError as `RunFolder.create` and `keep_start` do."""
        if not folder.path.exists():
            self.traces.callback(shutil.rmtree, folder.path, ignore_errors=True)
        wish, plan = self._wish, self.plan
        return folder.create(
            snapshot_id=self.frozen.id, dataset=wish.dataset, base=self._base, lora=plan.lora, settings=plan.settings,
            overwrite=overwrite, beside=self._write_beside,
            total=optimizer_steps(len(self.frozen.train), plan.settings),
            from_adapter=str(wish.start.path) if wish.start else "",
            **plan.chosen,
        )  # fmt: skip

    def _write_beside(self, folder: Path) -> None:
        if self._wish.start is not None:
            keep_start(self._wish.start.path, folder)
        keep_row_ids(folder, self.frozen.train)
        asked = {**self._wish.asked, "snapshot_id": self.frozen.id}
        write_yaml(folder, asked, self.plan.lora, self.plan.settings)


@contextmanager
def prepared_run(
    wish: RunWish,
    resident: "Resident",
    snapshots: Path,
    *,
    measure: Measure,
    tell: Callable[[Finding], None] = nothing,
    on_stage: OnStage = nothing,
) -> Iterator[Prepared]:
    """The run made ready, to be written and handed over within: where that fails, nothing of it is left.

    `tell` hears every finding of the check. Raises StudioError `run-refused` (with those that are errors),
    `disk-full-start`, and those of `TokenCache.rows`.
    """
    with ExitStack() as traces, full_disk_told(snapshots.parent, "disk-full-start"):
        traces.callback(_remove_empty, [place for place in (snapshots, *snapshots.parents) if not place.exists()])
        on_stage("freezing")
        frozen = snapshot.freeze(wish.train, wish.dev, snapshots)
        if frozen.new:
            traces.callback(shutil.rmtree, frozen.folder, ignore_errors=True)
        on_stage("checking")
        rows = RowSet.of(frozen.train, frozen.dev)
        plan = plan_run(
            resident, rows, wish.lora, wish.settings, start=wish.start, said=wish.said,
            known=wish.known, measure=_told(measure, on_stage),
            sizes=lambda settings: _rendered(frozen, resident, settings, on_stage),
        )  # fmt: skip
        for finding in plan.findings:
            tell(finding)
        if plan.errors:
            raise StudioError("run-refused", findings=plan.errors)
        ready = Prepared(wish, frozen, rows, plan, resident)
        traces.push(ready.traces)
        yield ready
        # It is handed over: what was made for it stays.
        ready.traces.pop_all()
        traces.pop_all()


def _rendered(
    frozen: snapshot.Snapshot, resident: "Resident", settings: TrainingSettings, on_stage: OnStage
) -> "RowSizes":
    """The sizes of the rows, which lie in the snapshot's token cache from here on."""
    from glmstudio.training.token_cache import TokenCache
    from glmstudio.training.token_counts import RowSizes

    total = len(frozen.train) + len(frozen.dev)
    on_stage("rendering", 0, total)
    cache = TokenCache(frozen.folder, resident.base, settings)

    def rendered(split: str, rows: Sequence[Example], before: int) -> "Sequence[Rendered]":
        return cache.rows(split, rows, lambda done: on_stage("rendering", before + done, total))

    return RowSizes.of(rendered("train", frozen.train, 0), rendered("dev", frozen.dev, len(frozen.train)))


def _told(measure: Measure, on_stage: OnStage) -> Measure:
    def measuring(*kind: Any) -> "Probe | None":
        on_stage("measuring")
        return measure(*kind)

    return measuring


def _remove_empty(places: Iterable[Path]) -> None:
    """The innermost first."""
    with suppress(OSError):
        for place in places:
            place.rmdir()
