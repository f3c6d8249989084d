"""Which process does something, so that another one can tell whether it is still there. Knows no work."""

import os
from collections.abc import Mapping
from typing import Any

import psutil


def this_process() -> dict[str, float]:
    """This process, for `is_there`: its number and when it started, in seconds since 1970."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def is_there(process: Mapping[str, Any]) -> bool:
    """Whether the process that `this_process` named still runs on this machine."""
    try:
        # The number of a dead process is given to a new one sooner or later; its start is another then.
        return abs(psutil.Process(int(process["pid"])).create_time() - process["started"]) < 1.0
    except (KeyError, TypeError, ValueError, psutil.Error):
        return False
