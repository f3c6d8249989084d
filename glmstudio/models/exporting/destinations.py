"""Folders that appear whole or not at all: written under another name, moved into place at the end. Knows no model.

What is written aside carries a mark with the process that writes it: nothing else is ever removed.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from safetensors import SafetensorError

from glmstudio import quantities
from glmstudio.errors import StudioError, first_line
from glmstudio.processes import is_there, this_process

MARK = ".glmstudio-writing"
_ENDING = ".writing"


@contextmanager
def aside(destination: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `destination` when the block ends well and vanishes when it does not.

    Raises StudioError `export-not-empty` for a destination that holds something, `file-not-written` where the disk
    says no.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise StudioError("export-not-empty", folder=str(destination))
    try:
        with workplace(destination) as folder:
            yield folder
            if destination.exists():
                destination.rmdir()
            os.replace(folder, destination)
            (destination / MARK).unlink()
    except (OSError, SafetensorError) as error:
        raise StudioError("file-not-written", name=str(destination), reason=first_line(error)) from error


@contextmanager
def workplace(destination: Path) -> Iterator[Path]:
    """Gives a new folder beside `destination`, which is removed at the end, with what writers of the same destination
    that were killed have left."""
    _clear(destination)
    folder = destination.parent / f".{destination.name}.{uuid.uuid4().hex[:8]}{_ENDING}"
    folder.mkdir(parents=True)
    try:
        (folder / MARK).write_text(json.dumps(this_process()), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(destination: Path) -> None:
    """Removes folders beside `destination` that a process marked which is no longer there."""
    for mark in destination.parent.glob(f".*{_ENDING}/{MARK}"):
        if not mark.parent.name.startswith(f".{destination.name}."):
            continue
        try:
            writer = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(writer, dict) and not is_there(writer):
            shutil.rmtree(mark.parent, ignore_errors=True)


def free_name(folder: Path, name: str, ending: str = "") -> Path:
    """`<name><ending>` in the folder, or where something is there already, the first of `<name>-2<ending>` … that is
    free."""
    names = (f"{name}{f'-{number}' if number > 1 else ''}{ending}" for number in count(1))
    return next(path for path in map(folder.joinpath, names) if not path.exists())


def require_room(destination: Path, needed: int) -> None:
    """Raise StudioError `export-disk-small` where the disk of `destination` has no room for `needed` bytes."""
    there = next(path for path in destination.absolute().parents if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        sizes = {"needed": quantities.size(needed), "free": quantities.size(free)}
        raise StudioError("export-disk-small", folder=str(destination), **sizes)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
