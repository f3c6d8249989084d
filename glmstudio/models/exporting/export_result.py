"""What an export gives back, whichever it was."""

from dataclasses import dataclass
from pathlib import Path

from glmstudio.data.quality import Finding
from glmstudio.models.exporting.merge_check import MergeCheck


@dataclass(frozen=True)
class ExportResult:
    """What was written: the folder or file, its size in bytes, how the merge was checked (None without one), and the
    warning where the base may not be the adapter's (`base_doubt`)."""

    path: Path
    bytes: int
    check: MergeCheck | None = None
    doubt: Finding | None = None
