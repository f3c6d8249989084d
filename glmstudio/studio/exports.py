"""Exports from the page: one at a time on a background thread. Knows no page and no words."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.file_names import require_fit
from glmstudio.studio.jobs import Jobs, Report

if TYPE_CHECKING:
    from glmstudio.models.exporting.export_result import ExportResult

FOLDER = "exports"


class Exports:
    """Writes below `checkpoints/exports`."""

    def __init__(self, checkpoints: Path, jobs: Jobs) -> None:
        self._checkpoints, self._jobs = checkpoints, jobs

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
        """Begins one of `settings.EXPORT_KINDS`; returns at once. The merge runs on the CPU, beside the resident base.

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

        def write(report: Report, should_stop: Callable[[], bool]) -> "ExportResult":
            from glmstudio.models.exporting.export import export

            written = {"official": "merged"}.get(kind, kind)
            return export(written, destination, on_progress=report, should_stop=should_stop, **wish)

        self._jobs.begin("export", {"name": destination.name}, write)


def _ending(kind: str) -> str:
    return ".gguf" if kind == "gguf" else ""
