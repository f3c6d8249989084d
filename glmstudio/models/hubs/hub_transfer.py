"""What every hub's download shares: which files are wanted, the room they need, the count of bytes, the stop.

Knows no hub and no network.
"""

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from glmstudio import quantities
from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import SINGLE_FILES, shards_of

DATA_SUFFIXES = (".json", ".model", ".txt", ".jinja")
OnProgress = Callable[[int, int, str], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it. `size` in bytes, None where a mirror does not say it; `sha256` is None where the hub
    keeps none (small text files)."""

    name: str
    size: int | None
    sha256: str | None


def total_size(files: Iterable[HubFile]) -> int:
    return sum(file.size or 0 for file in files)


class Stopped(BaseException):
    """Ends a download that was told to stop. No Exception, because hub clients catch those and try again."""


class Transfer:
    """The bytes of one download, counted over its threads."""

    def __init__(self, total: int, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> None:
        self._lock = threading.Lock()
        self._halted = threading.Event()
        self._total, self._done = total, 0
        self._on_progress, self._should_stop = on_progress, should_stop

    def add(self, count: int, file: str) -> None:
        """Counts bytes of `file` (negative where they are fetched anew). Raises `Stopped` when asked to stop."""
        if self._halted.is_set() or (self._should_stop is not None and self._should_stop()):
            raise Stopped
        with self._lock:
            self._done += count
            if self._on_progress is not None:
                self._on_progress(self._done, self._total, file)

    def halt(self) -> None:
        """Ends the other threads at their next bytes."""
        self._halted.set()

    def pause(self, seconds: float) -> None:
        self._halted.wait(seconds)


def wanted(source: str, files: Iterable[HubFile], index_file: Callable[[str], Path]) -> list[HubFile]:
    """The files that make a model folder: data at the top, safetensors weights or else pickled ones, never code.

    `index_file` fetches an index by its name. Raises StudioError `base-no-weights`, `base-incomplete`,
    `index-climbs`.
    """
    listed = {file.name: file for file in files if "/" not in file.name}
    data = [file for name, file in listed.items() if name.endswith(DATA_SUFFIXES)]
    for single in SINGLE_FILES:
        index = f"{single}.index.json"
        if single in listed:
            return [*data, listed[single]]
        if index in listed:
            shards = dict.fromkeys(shards_of(index_file(index)).values())
            for shard in shards:
                if shard not in listed:
                    raise StudioError("base-incomplete", folder=source, file=shard)
            return data + [listed[shard] for shard in shards]
    raise StudioError("base-no-weights", folder=source, names=", ".join(SINGLE_FILES))


def require_space(source: str, folder: Path, needed: int) -> None:
    """Raise StudioError `disk-small` where the disk of `folder` has no room for `needed` bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        sizes = {"needed": quantities.size(needed), "free": quantities.size(free)}
        raise StudioError("disk-small", source=source, folder=str(folder), **sizes)
