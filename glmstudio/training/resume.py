"""Going on with a run that did not reach its end: whether it can, from which step, what is known by then.

Knows the run's folder and what the Trainer writes into a checkpoint; loads no weights and trains nothing.
"""

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.models.base_names import same_source
from glmstudio.processes import this_process
from glmstudio.settings import TrainingSettings
from glmstudio.training.check import optimizer_steps
from glmstudio.training.disk_space import full_disk_told
from glmstudio.training.metrics import cut_back, read_from
from glmstudio.training.runs import LIVE, BaseFacts, Run, RunFolder, is_alive, versions

if TYPE_CHECKING:
    from glmstudio.models.base import Base

# What a checkpoint needs beside the adapter and each process's random numbers, so that the next step is the one that
# would have come.
STATE_FILES = frozenset({"optimizer.pt", "scheduler.pt", "trainer_state.json"})


@dataclass(frozen=True)
class Standing:
    """Where a run goes on: behind `step`, from `checkpoint`; None where it begins anew with the same seed.

    `eval_loss` and the best are those of the records up to there, `missed` the evaluations behind the best; `evaluated`
    tells whether one of them is of this step.
    """

    step: int = 0
    checkpoint: Path | None = None
    eval_loss: float | None = None
    best_step: int = 0
    best_eval_loss: float | None = None
    missed: int = 0
    evaluated: bool = False


def reopen(folder: RunFolder, base: "Base") -> Run:
    """Makes a run that was stopped, failed or broke off a queued one again, cut back to its newest whole checkpoint.

    Raises StudioError `resume-nothing`, `resume-finished`, `run-active`, `disk-full-start`, and those of
    `refuse_other_base`.
    """
    run = last_sitting(folder)
    refuse_other_base(run, BaseFacts.of(base))
    with full_disk_told(folder.path, "disk-full-start"):
        if run.status in LIVE:
            run = folder.mark_interrupted()
        folder.discard_half_written()
        return _cut_back(folder, run, base)


def _cut_back(folder: RunFolder, run: Run, base: "Base") -> Run:
    step = _newest_whole(folder)
    cut_back(folder.metrics_path, step)
    folder.log_path.unlink(missing_ok=True)
    return folder.update(
        status="queued",
        # Where it is now: the next one who goes on need not say it again.
        base=dataclasses.replace(run.base, source=base.source, fingerprint=base.fingerprint),
        step=step,
        earlier_seconds=run.seconds,
        paused_seconds=0.0,
        started_at=None,
        finished_at=None,
        error=None,
        versions=versions(),
        process=this_process(),
    )


def refuse_other_base(run: Run, facts: BaseFacts) -> None:
    """Raises StudioError `resume-base` where `facts` are of another base than the run's or of other numbers, and
    `resume-base-changed` where other weights lie where the run's were. The same weights may lie elsewhere by now."""
    began = run.base
    same_place = same_source(began.source, facts.source)
    known = bool(began.fingerprint and facts.fingerprint)
    same_weights = began.fingerprint == facts.fingerprint if known else same_place
    if same_place and not same_weights:
        raise StudioError("resume-base-changed", run=run.id, source=facts.source)
    if not same_weights or (began.family, began.numbers) != (facts.family, facts.numbers):
        raise StudioError(
            "resume-base", run=run.id, wanted=began.source, wanted_numbers=began.numbers, source=facts.source,
            numbers=facts.numbers,
        )  # fmt: skip


def last_sitting(folder: RunFolder) -> Run:
    """The run as it was left. Raises StudioError where there is nothing to go on with."""
    try:
        run = folder.read()
    except StudioError as error:
        if error.code != "run-missing":
            raise
        raise StudioError("resume-nothing", folder=str(folder.path)) from None
    if is_alive(run):
        raise StudioError("run-active", run=run.id)
    if run.status == "finished":
        raise StudioError("resume-finished", run=run.id, steps=run.step)
    return run


def begins_anew(folder: RunFolder) -> Finding | None:
    """The warning `resume-anew` or `resume-anew-incomplete` where a run that has trained has no whole checkpoint to go
    on from. To be asked before `reopen`, which cuts the run back."""
    records, _ = read_from(folder.metrics_path)
    # A run that was killed has recorded more steps than it has told.
    step = max(folder.read().step, records[-1].step if records else 0)
    if not step or _newest_whole(folder):
        return None
    facts: dict[str, object] = {"run": folder.path.name, "step": step, "folder": str(folder.path)}
    for newest in folder.numbered():
        checkpoint = folder.path / f"checkpoint-{newest}"
        facts |= {"checkpoint": checkpoint.name, "file": sorted(_missing(checkpoint, _state_files(folder)))[0]}
        return Finding("resume-anew-incomplete", "warning", params=facts)
    return Finding("resume-anew", "warning", params=facts)


def standing(folder: RunFolder) -> Standing:
    """Where a run that was reopened stands."""
    step = _newest_whole(folder)
    records, _ = read_from(folder.metrics_path)
    losses = {record.step: record.values["loss"] for record in records if record.kind == "eval"}
    best = min(losses, key=losses.__getitem__, default=0)
    return Standing(
        step,
        folder.path / f"checkpoint-{step}" if step else None,
        eval_loss=losses[max(losses)] if losses else None,
        best_step=best,
        best_eval_loss=losses.get(best),
        missed=sum(found > best for found in losses),
        evaluated=step in losses,
    )


def evaluation_due(step: int, rows: int, settings: TrainingSettings) -> bool:
    """Whether an undisturbed run of so many training rows evaluates behind this step."""
    in_epoch = optimizer_steps(rows, dataclasses.replace(settings, num_train_epochs=1))
    return step % (settings.eval_steps or in_epoch) == 0 or step == optimizer_steps(rows, settings)


def _newest_whole(folder: RunFolder) -> int:
    """The step of the newest checkpoint that holds everything, 0 without one."""
    wanted = _state_files(folder)
    return next((step for step in folder.numbered() if not _missing(folder.path / f"checkpoint-{step}", wanted)), 0)


def _state_files(folder: RunFolder) -> Set[str]:
    count = folder.read().settings.num_processes
    return STATE_FILES | ({"rng_state.pth"} if count == 1 else {f"rng_state_{index}.pth" for index in range(count)})


def _missing(checkpoint: Path, wanted: Set[str]) -> Set[str]:
    """The files that are not there or empty: a power cut leaves files that were moved into place but hold nothing."""
    sizes = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
    return {name for name in wanted | sizes.keys() if not sizes.get(name)}
