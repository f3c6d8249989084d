"""Folders that appear whole or not at all: written under another name, moved into place at the end. Knows no model."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import first_line


@contextmanager
def aside(destination: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `destination` when the block ends well and vanishes when it does not.

    Raises StudioError `export-not-empty` for a destination that holds something, `file-not-written` where the disk
    says no.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise StudioError("export-not-empty", folder=str(destination))
    folder = destination.parent / f".{destination.name}.writing"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
        if destination.exists():
            destination.rmdir()
        os.replace(folder, destination)
    except (OSError, SafetensorError) as error:
        raise StudioError("file-not-written", name=str(destination), reason=first_line(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_room(destination: Path, needed: int) -> None:
    """Raise StudioError `export-disk-small` where the disk of `destination` has no room for `needed` bytes."""
    there = next(path for path in destination.absolute().parents if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        sizes = {"needed": f"{needed / 1e9:.1f}", "free": f"{free / 1e9:.1f}"}
        raise StudioError("export-disk-small", folder=str(destination), **sizes)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
