"""Exports from the page: one at a time on a background thread. Knows no page and no words."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.errors import StudioError
from glmstudio.file_names import require_fit
from glmstudio.studio.run_thread import RunThread

if TYPE_CHECKING:
    from glmstudio.models.exporting.export_result import ExportResult

KINDS = ("adapter", "merged", "official", "gguf")
FOLDER = "exports"


@dataclass(frozen=True)
class ExportState:
    """The export under way, or the last one. `state` is idle, running, done or failed; `job` is what a stop names;
    `stage` is export's own."""

    state: str = "idle"
    job: str = ""
    kind: str = ""
    destination: Path = Path()
    stage: str = ""
    done: int = 0
    total: int = 0
    result: "ExportResult | None" = None
    error: StudioError | None = None


class Exports:
    """Writes below `checkpoints/exports`."""

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self._thread = RunThread(
            busy="export-active",
            bug=lambda reason: StudioError("export-failed", reason=reason),
            on_failure=self._fail,
        )
        self._now = ExportState()

    def destination(self, kind: str, run_id: str, checkpoint: str, name: str = "") -> Path:
        """Where an export goes: under the `name` that it gets, or a name of its own that is not there yet. Raises
        StudioError `name-unfit`."""
        if name:
            require_fit(name)
            return self._checkpoints / FOLDER / f"{name.removesuffix(_ending(kind))}{_ending(kind)}"
        from glmstudio.models.exporting.destinations import free_name

        return free_name(self._checkpoints / FOLDER, f"{run_id}-{checkpoint}-{kind}", _ending(kind))

    def start(
        self,
        kind: str,
        adapter: Path,
        base_source: str,
        destination: Path,
        scores: Mapping[str, Any] | None,
        language: str,
    ) -> None:
        """Begins one of `KINDS`; returns at once. The merge runs on the CPU, beside the resident base.

        `scores` are those of a scoreboard, for the README. Raises StudioError `export-active`.
        """
        wish: dict[str, Any] = {
            "base_source": base_source,
            "adapter": adapter,
            "form": "official" if kind == "official" else "native",
            "scores": scores,
            "language": language,
            "device": "cpu",
        }

        def prepare() -> tuple[str, Callable[..., None]]:
            self._now = ExportState("running", uuid.uuid4().hex, kind, destination)
            return self._now.job, lambda should_stop: self._work(wish, should_stop)

        self._thread.start(prepare)

    def stop(self, job: str) -> None:
        """Asks that export to stop, where it is under way; nothing of it is left then."""
        self._thread.stop(job)

    def close(self, seconds: float) -> None:
        self._thread.close(seconds)

    def now(self) -> ExportState:
        return self._now

    def _work(self, wish: dict[str, Any], should_stop: Callable[[], bool]) -> None:
        from glmstudio.models.exporting.export import export

        def tell(done: int, total: int, stage: str) -> None:
            self._now = replace(self._now, stage=stage, done=done, total=total)

        kind = {"official": "merged"}.get(self._now.kind, self._now.kind)
        result = export(kind, self._now.destination, on_progress=tell, should_stop=should_stop, **wish)
        self._now = replace(self._now, state="done", result=result)

    def _fail(self, error: StudioError) -> None:
        self._now = replace(self._now, state="failed", error=error)


def _ending(kind: str) -> str:
    return ".gguf" if kind == "gguf" else ""
