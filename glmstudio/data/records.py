"""JSON files that this program wrote, read back: every value is of its kind, or the file is damaged and says where.
Knows no run and no score."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from glmstudio.errors import StudioError

# Since 1970, or a span; a calendar ends somewhere.
Seconds = Annotated[float, Field(ge=0, lt=1e11)]
_SHOWN = 40
# Longer than between two times that a file system can tell apart.
SETTLED_SECONDS = 2
T = TypeVar("T")


def read_record(
    path: Path, kind: TypeAdapter[T], code: str, of_older_versions: Callable[[dict[str, Any]], None] | None = None
) -> T:
    """What a file says. `of_older_versions` changes what was written otherwise once; what is not known is left out.

    Raises FileNotFoundError, and StudioError `code` with `file` and `reason` for everything else that is wrong.
    """
    try:
        values = json.loads(path.read_bytes())
        if of_older_versions is not None and isinstance(values, dict):
            of_older_versions(values)
        # Lists are tuples only where JSON is read.
        return kind.validate_json(json.dumps(values), strict=True)
    except FileNotFoundError:
        raise
    except ValidationError as error:
        reason = _first(error)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise StudioError(code, file=str(path), reason=reason)


def _first(error: ValidationError) -> str:
    """The first value that is none, in no language: `base.source = 5`."""
    found = error.errors(include_url=False)[0]
    place = ".".join(map(str, found["loc"])) or "JSON"
    value = "–" if found["type"] == "missing" else repr(found["input"])
    return f"{place} = {value[:_SHOWN]}{'…' if len(value) > _SHOWN else ''}"


@dataclass(frozen=True)
class _Kept(Generic[T]):
    value: T
    stamps: dict[str, tuple[int, int, int] | None]


class KeptReads(Generic[T]):
    """What was read of files and folders, by a name; read again only where one of them has changed. Safe to call from
    several threads."""

    def __init__(self) -> None:
        self._known: dict[str, _Kept[T]] = {}

    def get(self, name: str, read: Callable[[], tuple[T, Iterable[str]]]) -> T:
        """`read` gives the value and the paths of everything that it depends on. Raises as that does."""
        known = self._known.get(name)
        if known is not None and all(_stamp(path) == stamp for path, stamp in known.stamps.items()):
            return known.value
        began = time.time_ns()
        value, paths = read()
        stamps = {path: _stamp(path) for path in paths}
        # Two changes of one moment may have the same time: what is that new is read again.
        if all(stamp is None or stamp[2] < began - SETTLED_SECONDS * 10**9 for stamp in stamps.values()):
            self._known[name] = _Kept(value, stamps)
        else:
            self._known.pop(name, None)
        return value

    def keep_only(self, names: Collection[str]) -> None:
        """Forgets the others."""
        for name in self._known.keys() - set(names):
            self._known.pop(name, None)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Records(Generic[T]):
    """Files of one kind, which `read` reads; again only when they have changed. Safe to call from several threads."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._kept: KeptReads[T | StudioError] = KeptReads()

    def look(self, paths: Iterable[str]) -> tuple[list[T], list[StudioError]]:
        """What is in those that are there, and what is wrong with the others."""
        paths, found, damaged = list(paths), [], []
        for path in paths:
            try:
                value = self._kept.get(path, partial(self._looked, path))
            except FileNotFoundError:
                continue
            if isinstance(value, StudioError):
                damaged.append(value)
            else:
                found.append(value)
        self._kept.keep_only(paths)
        return found, damaged

    def _looked(self, path: str) -> tuple[T | StudioError, list[str]]:
        try:
            return self._read(Path(path)), [path]
        except StudioError as error:
            if not os.path.exists(path):
                raise FileNotFoundError from error
            return error.bare(), [path]


def folders(place: Path) -> list[str]:
    """The paths of the folders in a folder; none where it is not there."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        return [entry.path for entry in entries if entry.is_dir()]
    return []
