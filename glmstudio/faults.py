"""Faults of the program itself, that is every error that is no StudioError: each gets a short number, and its trace
stands under that number in the log. Knows no words."""

import logging
import time
import zlib
from logging.handlers import RotatingFileHandler
from pathlib import Path
from traceback import extract_tb

_LOG = logging.getLogger("glmstudio.faults")
# A fault of something that happens every second would push all others out of the log.
_QUIET_SECONDS = 60.0
_written: dict[str, float] = {}


def keep_log(path: Path) -> None:
    """From now on faults go to this file: at most 1 MB, then four older ones beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=4, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for former in list(_LOG.handlers):
        _LOG.removeHandler(former)
        former.close()
    _LOG.addHandler(handler)
    _LOG.propagate = False
    _written.clear()


def record(error: BaseException) -> str:
    """Writes the trace and gives its number, six digits: the same for the same kind of error at the same place. A fault
    that comes again within a minute is not written again."""
    number = _number(error)
    now = time.monotonic()
    if now - _written.get(number, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _written[number] = now
        _LOG.error("fault %s: %s", number, type(error).__name__, exc_info=error)
    return number


def told(error: BaseException) -> str:
    """What a sentence says of a fault that ended work in the background: kind, message and, recorded, its number."""
    return f"{type(error).__name__}: {error} (#{record(error)})"


def _number(error: BaseException) -> str:
    place = [
        type(error).__qualname__,
        *(f"{Path(step.filename).name}:{step.name}" for step in extract_tb(error.__traceback__)),
    ]
    return f"{zlib.crc32(' '.join(place).encode()) % 1_000_000:06d}"
