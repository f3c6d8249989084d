"""Run folders: what a run is, its `run.json`, its checkpoints, which runs died. Knows files and processes, no model.

A folder holds `run.json`, `run.yaml`, `metrics.jsonl`, `row_ids.json`, the adapters `best`, `last`, `checkpoint-N`
and `start`, the adapter that it began with where that was a finished one; what a tracker writes is in a folder called
like it; after a failure, and of several processes, there is `run.log`.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from glmstudio.data import snapshot
from glmstudio.data.records import Seconds, read_record
from glmstudio.errors import StudioError
from glmstudio.processes import is_there, this_process
from glmstudio.settings import TRACKERS, LoraSettings, TrainingSettings
from glmstudio.training.disk_space import full_disk_told, keep_room
from glmstudio.training.metrics import read_from
from glmstudio.training.row_ids import ROW_IDS, with_row_ids

if TYPE_CHECKING:
    from glmstudio.models.base import Base

Status = Literal["queued", "running", "paused", "stopping", "finished", "stopped", "failed", "interrupted"]
LIVE = ("queued", "running", "paused", "stopping")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "sentencepiece")
# PEFT's, and that of P-Tuning v2 in the official form.
ADAPTER_CONFIGS = ("adapter_config.json", "config.json")
_NUMBERED_RUN = re.compile(r"run-(\d+)")
_NUMBERED_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_OLD = "-old"
START = "start"


@dataclass(frozen=True)
class BaseFacts:
    """Which base a run trains on, as it was loaded; `fingerprint` tells its weights by content, "" in older runs."""

    source: str
    family: str
    dtype: str
    device: str
    quantization: str = "none"
    fingerprint: str = ""

    @classmethod
    def of(cls, base: "Base") -> "BaseFacts":
        dtype = str(base.dtype).removeprefix("torch.")
        return cls(base.source, base.family.name, dtype, str(base.device), base.quantization, base.fingerprint)

    @property
    def numbers(self) -> str:
        """What the weights are held in, for people: "bfloat16", "bfloat16 4bit"."""
        return self.dtype if self.quantization == "none" else f"{self.dtype} {self.quantization}"


class Failure(TypedDict):
    """A StudioError on disk."""

    code: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What `run.json` says. `status` is queued, running, paused, stopping, finished, stopped, failed or
    interrupted.

    `number` is that of `run-0007`, 0 for other folder names. `step` and `total` count optimizer steps; times are
    seconds since 1970; `error` is a code with its params. `process` tells whether whoever wrote this is still there.
    A run that was gone on with started when it did so last; `earlier_seconds` were trained before, and since then it
    was paused for `paused_seconds`. `token_budget` (0: none) and gradient `checkpointing` are those it began with,
    unless memory ran out and the budget was halved: then `halved_from` is the former one, and a run that goes on keeps
    the half and is not halved again. Those of an `undecided` run, which was queued when nobody could measure, are
    chosen at its turn. `stopped_early` tells a finished run whose dev loss got no better for too long. `from_adapter`
    is the path of the adapter that this one started as, "" for a fresh one.
    """

    id: str
    number: int
    dataset: str
    snapshot_id: str
    base: BaseFacts
    lora: LoraSettings
    settings: TrainingSettings
    status: Status = "queued"
    step: int = 0
    total: int = 0
    created_at: Seconds = 0.0
    started_at: Seconds | None = None
    finished_at: Seconds | None = None
    earlier_seconds: Seconds = 0.0
    paused_seconds: Seconds = 0.0
    error: Failure | None = None
    best_step: int = 0
    best_eval_loss: float | None = None
    token_budget: int = 0
    halved_from: int = 0
    stopped_early: bool = False
    checkpointing: bool = False
    undecided: bool = False
    from_adapter: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    process: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the run trained until it ended; of one that is under way, what was trained before it went on."""
        if self.started_at is None or self.finished_at is None:
            return self.earlier_seconds
        return self.earlier_seconds + self.finished_at - self.started_at - self.paused_seconds


class RunFolder:
    """One run on disk. One process writes it; any may read it at any time and finds whole files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log_path(self) -> Path:
        return self.path / "run.log"

    @property
    def start(self) -> Path | None:
        """The adapter that the run's own started as, a copy; None where it was a fresh one."""
        return self.path / START if (self.path / START).is_dir() else None

    @property
    def aside(self) -> Path:
        """Where checkpoints are written before they are moved into place."""
        return self.path / ".writing"

    @property
    def _run_path(self) -> Path:
        return self.path / "run.json"

    def create(
        self,
        *,
        snapshot_id: str,
        dataset: str,
        base: "Base",
        lora: LoraSettings,
        settings: TrainingSettings,
        overwrite: bool = False,
        beside: Callable[[Path], None] = lambda folder: None,
        **known: Any,
    ) -> Run:
        """Writes `run.json` of a queued run; with `overwrite` in the place of the run that was there. `beside` fills a
        folder with what goes beside it; until that is done nothing is a run, and nothing has changed. `known` are
        fields of `Run` that are not as usual. Raises StudioError as `refuse_taken`.
        """
        self.refuse_taken(overwrite=overwrite)
        facts: dict[str, Any] = {
            "token_budget": settings.token_budget,
            "checkpointing": settings.gradient_checkpointing == "on",
            **known,
        }
        run = Run(
            id=self.path.name,
            number=_number(self.path),
            dataset=dataset,
            snapshot_id=snapshot_id,
            base=BaseFacts.of(base),
            lora=lora,
            settings=settings,
            created_at=time.time(),
            versions=versions(),
            process=this_process(),
            **facts,
        )
        new = self.path / ".new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            beside(new)
            if self._run_path.exists():
                self._clear()
            for path in new.iterdir():
                os.replace(path, self.path / path.name)
            self._write(run)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return run

    def refuse_taken(self, *, overwrite: bool = False) -> None:
        """Raises StudioError `run-exists`, `run-active` for a run that a living process trains, and `run-folder-taken`
        where something that a run would write over is there without a run."""
        if self._run_path.exists():
            if is_alive(self.read()):
                raise StudioError("run-active", run=self.path.name)
            if not overwrite:
                raise StudioError("run-exists", folder=str(self.path))
        elif taken := self._foreign():
            raise StudioError("run-folder-taken", folder=str(self.path), name=taken)

    def read(self) -> Run:
        """Raises StudioError `run-missing` where there is no run, `run-unreadable` where `run.json` is damaged."""
        try:
            run = read_record(self._run_path, _KIND, "run-unreadable", _of_older_versions)
        except FileNotFoundError:
            raise StudioError("run-missing", folder=str(self.path)) from None
        # The folder may have been copied or renamed.
        return dataclasses.replace(run, id=self.path.name, number=_number(self.path))

    def update(self, **changes: Any) -> Run:
        """Changes fields of `run.json`."""
        run = dataclasses.replace(self.read(), **changes)
        self._write(run)
        return run

    def rows(self, snapshots: Path) -> snapshot.Snapshot:
        """The rows that the run trains on: frozen in its own folder, or among the workspace's `snapshots`; with the ids
        that were kept for the training rows.

        Raises StudioError as `read` and `snapshot.load` do.
        """
        frozen = snapshot.find(self.read().snapshot_id, self.path / "snapshots", snapshots)
        return with_row_ids(self.path, frozen)

    def candidates(self) -> list[str]:
        """The names that adapters may have here, whether or not there are any."""
        numbers = _numbers(self.path, _NUMBERED_CHECKPOINT)
        return ["best", "last", *(f"checkpoint-{number}" for number in sorted(numbers, reverse=True))]

    def checkpoints(self) -> list[str]:
        """The adapters that are there: best, last, then the numbered ones, the newest first."""
        names = self.candidates()
        # While a new one takes its place, the old best or last lies aside for a moment.
        return [name for name in names if _is_adapter(self.path / name) or _is_adapter(self.aside / f"{name}{_OLD}")]

    def put(self, name: str, write: Callable[[Path], None]) -> None:
        """Lets `write` fill a folder aside, then moves it to `name`, in the place of what was there.

        Raises StudioError `disk-full`; what was there stays then.
        """
        new = self.aside / name
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        with full_disk_told(self.path):
            write(new)
        old = self._move_aside(name)
        os.replace(new, self.path / name)
        shutil.rmtree(old, ignore_errors=True)

    def keep_newest(self, count: int) -> None:
        """Removes all numbered checkpoints but the newest ones."""
        for number in self.numbered()[count:]:
            shutil.rmtree(self._move_aside(f"checkpoint-{number}"))

    def numbered(self) -> list[int]:
        """The steps of the numbered checkpoints, the newest first."""
        names = (_NUMBERED_CHECKPOINT.fullmatch(name) for name in self.checkpoints())
        return [int(name[1]) for name in names if name]

    def keep_room(self) -> None:
        """Keeps some room aside, so that how the run ended can be written also on a full disk."""
        self.aside.mkdir(exist_ok=True)
        keep_room(self.aside / "room")

    def discard_half_written(self) -> None:
        """Removes the room that was kept and what a run that broke off left aside; what `put` had moved away for a
        newer one comes back first."""
        for old in self.aside.glob(f"*{_OLD}"):
            place = self.path / old.name.removesuffix(_OLD)
            # A numbered checkpoint that lies aside was on its way out.
            if not place.exists() and not _NUMBERED_CHECKPOINT.fullmatch(place.name):
                os.replace(old, place)
        shutil.rmtree(self.aside, ignore_errors=True)

    def mark_interrupted(self) -> Run:
        """For a run whose process died: it ended when something of it was written last, behind the last step that was
        recorded."""
        self.discard_half_written()
        records, _ = read_from(self.metrics_path)
        step = max(self.read().step, records[-1].step if records else 0)
        files = (path for path in (self._run_path, self.metrics_path) if path.exists())
        return self.update(status="interrupted", step=step, finished_at=max(path.stat().st_mtime for path in files))

    def _move_aside(self, name: str) -> Path:
        old = self.aside / f"{name}{_OLD}"
        shutil.rmtree(old, ignore_errors=True)
        if (self.path / name).exists():
            self.aside.mkdir(exist_ok=True)
            os.replace(self.path / name, old)
        return old

    def _write(self, run: Run) -> None:
        new = self._run_path.with_suffix(".json.new")
        new.write_text(json.dumps(dataclasses.asdict(run), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        os.replace(new, self._run_path)

    def _foreign(self) -> str:
        """The name of a folder that a run would take for its own and that is none of its, or an empty string."""
        taken = (*self.path.glob("checkpoint-*"), *(self.path / name for name in ("best", "last", START)), self.aside)
        return next((path.name for path in taken if path.exists()), "")

    def _clear(self) -> None:
        trackers = (self.path / name for name in TRACKERS)
        adapters = (self.path / name for name in ("best", "last", START))
        for folder in (*self.path.glob("checkpoint-*"), *adapters, self.aside, *trackers):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics_path, self.log_path, self.path / ROW_IDS, self._run_path):
            file.unlink(missing_ok=True)


def new_run_id(checkpoints: Path) -> str:
    """`run-0001`, or one more than the highest number in the folder."""
    return f"run-{max(_numbers(checkpoints, _NUMBERED_RUN), default=0) + 1:04d}"


def is_alive(run: Run) -> bool:
    """Whether the run is under way in a process that is still there."""
    return run.status in LIVE and is_there(run.process)


def _of_older_versions(values: dict[str, Any]) -> None:
    """Gradient checkpointing was a switch with two positions, and stood in the settings only."""
    settings = values.get("settings")
    if not isinstance(settings, dict):
        return
    wish = settings.get("gradient_checkpointing")
    if isinstance(wish, bool):
        settings["gradient_checkpointing"] = wish = "on" if wish else "off"
    values.setdefault("checkpointing", wish == "on")


_KIND = TypeAdapter(Run)


def _is_adapter(folder: Path) -> bool:
    return any((folder / config).is_file() for config in ADAPTER_CONFIGS)


def _number(folder: Path) -> int:
    numbered = _NUMBERED_RUN.fullmatch(folder.name)
    return int(numbered[1]) if numbered else 0


def _numbers(folder: Path, name: re.Pattern[str]) -> list[int]:
    return [int(found[1]) for path in folder.glob("*") if (found := name.fullmatch(path.name))]


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
