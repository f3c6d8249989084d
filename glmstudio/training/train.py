"""THE training function: page, command line and tests call this one. Knows no page, no words and no data file."""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from transformers import set_seed

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.models.chat_format import Rendered
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.allocator import kept_memory
from glmstudio.training.arguments import training_arguments
from glmstudio.training.callbacks import LetOthersIn, Progress, Recorder, StopWhenAsked
from glmstudio.training.disk_space import is_disk_full
from glmstudio.training.early_stopping import EarlyStop
from glmstudio.training.frozen_linears import drop_frozen_linears, use_frozen_linears
from glmstudio.training.guards import StepGuard
from glmstudio.training.loss import agrees_with_model
from glmstudio.training.memory_shortage import free_memory, is_shortage
from glmstudio.training.pace import Pace
from glmstudio.training.pause_wish import PauseWish
from glmstudio.training.pausing import PauseWhenAsked
from glmstudio.training.ranks import Ranks, SharedWish, ranks
from glmstudio.training.reporting import reporting
from glmstudio.training.resume import Standing, evaluation_due, standing
from glmstudio.training.row_ids import row_ids
from glmstudio.training.runs import Run, RunFolder
from glmstudio.training.sharding import shard
from glmstudio.training.thin import drop_thin_products, use_thin_products
from glmstudio.training.token_cache import TokenCache
from glmstudio.training.trainer import AdapterTrainer

__all__ = ["Progress", "train"]


def train(
    resident: Resident,
    folder: RunFolder,
    train: Sequence[Example],
    dev: Sequence[Example],
    lora: LoraSettings,
    settings: TrainingSettings,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    pause: PauseWish | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    resume: bool = False,
    tokens: Path | None = None,
) -> Run:
    """Trains one adapter on the resident base and gives the run as it ended, finished or stopped.

    `folder` holds a run made by `RunFolder.create`; with `resume` one that `reopen` cut back, which then goes on as if
    nothing had happened: the same bytes come out. The run keeps a turn of the gate and lets others in between steps.
    In a process that `ranks.launched` has joined with others they train together; all but the first hold the folder as
    a `WatchedFolder`. `pause` is for one process alone, others would not hear of it. `tokens` is a folder that keeps
    the rows' token ids for the next start, usually their snapshot's. `best` has the lowest dev loss; without one it is
    `last`. Raises StudioError after status, code and traceback (`run.log`) were written into the folder: `train-empty`,
    `lora-targets`, `family-loss`, `report-missing`, `out-of-memory`, `disk-full`, `run-failed` and `StepGuard`'s.
    """
    tell = on_progress or (lambda progress: None)
    here, wait = ranks(), pause or PauseWish()
    try:
        folder.keep_room()
        run = folder.update(status="running", started_at=time.time())
        start = here.same(standing(folder) if resume else Standing())
        tell(_progress_at(start, run.total, resident.memory_bytes))
        if not train:
            raise StudioError("train-empty")
        cache = TokenCache(tokens, resident.base, settings)
        rows, dev_rows = cache.rows("train", train), cache.rows("dev", dev)
        fp16 = resident.base.dtype == torch.float16
        guard = StepGuard(row_ids(train), rate=settings.learning_rate, fp16=fp16)
        with resident.gate.turn(), _current(resident.base.device), kept_memory():
            try:
                asked = _train(
                    resident, folder, rows, dev_rows, lora, settings, start, guard, should_stop, wait, tell, here
                )
            finally:
                drop_frozen_linears(resident)
                drop_thin_products(resident.base.model)
                resident.end_training()
                resident.base.model.activation_checkpointing_disable()
                free_memory()
        folder.discard_half_written()
        return folder.update(status="stopped" if asked else "finished", finished_at=time.time())
    except Exception as error:
        failure = _failure(error, folder)
        error_facts = {"code": failure.code, "params": dict(failure.params)}
        _record_end(folder, status="failed", error=error_facts)
        raise failure from error
    except BaseException:
        _record_end(folder, status="interrupted")
        raise


def _train(
    resident: Resident,
    folder: RunFolder,
    rows: Sequence[Rendered],
    dev_rows: Sequence[Rendered],
    lora: LoraSettings,
    settings: TrainingSettings,
    start: Standing,
    guard: StepGuard,
    should_stop: Callable[[], bool],
    pause: PauseWish,
    tell: Callable[[Progress], None],
    here: Ranks,
) -> bool:
    """The part inside the turn; True where it was stopped. Everything that holds the adapter dies with this call."""
    base, run = resident.base, here.same(folder.read())
    with here.passing():
        shortest = min(rows, key=lambda row: len(row.ids))
        model = _new_adapter(resident, shortest, lora, settings, here, folder.start)
    here.copy_weights(model.parameters())
    pace, wish = Pace(), SharedWish(here, should_stop)
    arguments = training_arguments(
        settings,
        folder,
        base.device,
        checkpointing=run.checkpointing,
        dev=bool(dev_rows),
        use_cache=getattr(base.model.config, "use_cache", True),
        evaluate_first=not start.evaluated and _has_learnt(start, folder, len(rows), settings),
    )
    trainer = AdapterTrainer(
        model,
        arguments,
        train=rows,
        dev=dev_rows,
        folder=folder,
        pace=pace,
        batch_size=settings.per_device_train_batch_size,
        run=run,
        on_halved=lambda before, after: recorder.halved(before, after),
        save_total_limit=settings.save_total_limit,
        guard=guard,
        here=here,
        stop=wish,
    )
    if not here.first:
        # The same start, but dropout of its own.
        torch.manual_seed(settings.seed + here.index)
    early = EarlyStop(settings.early_stopping_patience, start.missed)
    recorder = Recorder(
        folder,
        pace,
        on_progress=tell,
        keep_best=lambda: trainer.keep("best"),
        memory_bytes=lambda: resident.memory_bytes,
        progress=_progress_at(start),
        early=early,
    )
    stop = StopWhenAsked(wish, folder)
    paused = PauseWhenAsked(pause, stop, keep=trainer.keep_state, folder=folder, gate=resident.gate, pace=pace)
    others = LetOthersIn(resident.gate, pace, until=lambda: should_stop() or pause.asked)
    # The order counts: what a stop changes is recorded, and the time that others take is no time of the step.
    for callback in (paused, stop, recorder, early, others):
        trainer.add_callback(callback)
    try:
        with reporting(settings.report_to if here.first else "none", folder, start.step) as trackers:
            for callback in trackers:
                trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=str(start.checkpoint) if start.checkpoint else None)
        trainer.keep_state()
        trainer.keep("last")
        # The folder knows the best of an earlier sitting that got further than its newest checkpoint.
        if folder.read().best_eval_loss is None:
            trainer.keep("best")
        step, steps = trainer.state.global_step, trainer.state.max_steps
        folder.update(step=step, stopped_early=early.due and step < steps)
    finally:
        recorder.close()
    return stop.asked


def _has_learnt(start: Standing, folder: RunFolder, rows: int, settings: TrainingSettings) -> bool:
    """Whether the dev loss before the first step is one of the run's own: behind a step that has it, or that of the
    adapter that the run started as."""
    return evaluation_due(start.step, rows, settings) if start.step else folder.start is not None


def _new_adapter(
    resident: Resident, row: Rendered, lora: LoraSettings, settings: TrainingSettings, here: Ranks, begun: Path | None
) -> torch.nn.Module:
    """The base, in parts where it is to be, with a new adapter, fresh or as the one in `begun`, after a look whether
    our loss is the model's."""
    base = resident.base
    # The adapter starts from torch's global random numbers.
    set_seed(settings.seed)
    model = resident.begin_training(lora, settings, begun)
    use_thin_products(model)
    if here.sharded:
        shard(base, here.count)
    else:
        use_frozen_linears(resident)
    if not agrees_with_model(model, row):
        raise StudioError("family-loss", family=base.family.name, source=base.source)
    return model


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Checkpoints hold the random numbers of CUDA's current device: inside, that is the base's."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _progress_at(start: Standing, total: int = 0, memory_bytes: int = 0) -> Progress:
    return Progress(
        start.step,
        total,
        phase="preparing",
        memory_bytes=memory_bytes,
        eval_loss=start.eval_loss,
        best_step=start.best_step,
        best_eval_loss=start.best_eval_loss,
    )


def _record_end(folder: RunFolder, **facts: object) -> None:
    # A full disk has room again for the report once the half-written checkpoint and the room that was kept are gone.
    folder.discard_half_written()
    # Whoever called hears of the error also where others have taken that room.
    with suppress(OSError):
        folder.update(finished_at=time.time(), **facts)
        folder.log_path.write_text(traceback.format_exc(), encoding="utf-8")


def _failure(error: Exception, folder: RunFolder) -> StudioError:
    """The error as a code that a person can act on."""
    if isinstance(error, StudioError):
        return error
    text = str(error)
    if is_shortage(error):
        return StudioError("out-of-memory", run=folder.path.name)
    if is_disk_full(error):
        return StudioError("disk-full", folder=str(folder.path))
    return StudioError("run-failed", reason=f"{type(error).__name__}: {text}", log=str(folder.log_path))
