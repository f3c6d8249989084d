"""What an export gives back, whichever it was."""

from dataclasses import dataclass
from pathlib import Path

from glmstudio.models.exporting.merge_check import MergeCheck


@dataclass(frozen=True)
class ExportResult:
    """What was written: the folder or file, its size in bytes, and how the merge was checked (None without one)."""

    path: Path
    bytes: int
    check: MergeCheck | None = None
