"""A disk that is full: told from other errors, and room that is kept so that a run can say so. Knows files only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

from glmstudio.errors import StudioError

_FULL = (ENOSPC, EDQUOT, EFBIG)
# For a traceback in run.log, run.json and some lines of metrics.jsonl.
ROOM = 64 * 1024
# More than a writer that failed for want of a block can have left.
_PROBE = 256 * 1024


def is_disk_full(error: BaseException) -> bool:
    """Whether the system says so, here or in what it was raised from: no space, a quota, a limit on files."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    origin = error.__cause__ or error.__context__
    return origin is not None and origin is not error and is_disk_full(origin)


@contextmanager
def full_disk_told(folder: Path, code: str = "disk-full") -> Iterator[None]:
    """Whatever fails within because the disk of `folder` is full is a StudioError `code`.

    The writers of torch and safetensors hide the system's number behind words of their own, so that the disk is asked.
    """
    try:
        yield
    except StudioError:
        raise
    except Exception as error:
        if is_disk_full(error) or not has_room(folder, _PROBE):
            raise StudioError(code, folder=str(folder)) from error
        raise


def has_room(folder: Path, size: int) -> bool:
    """Whether so many bytes can be written there now; other reasons why they cannot be are none of this question's."""
    probe = folder / ".probe"
    try:
        keep_room(probe, size)
    except OSError as error:
        return not is_disk_full(error)
    finally:
        probe.unlink(missing_ok=True)
    return True


def keep_room(path: Path, size: int = ROOM) -> None:
    """Writes a file that holds so many bytes of the disk until it is removed."""
    with path.open("wb") as file:
        # Zeros take no room on a disk that compresses.
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
