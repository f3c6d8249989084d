"""JSON files that this program wrote, read back: every value is of its kind, or the file is damaged and says where.
Knows no run and no score."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from glmstudio.errors import StudioError

# Since 1970, or a span; a calendar ends somewhere.
Seconds = Annotated[float, Field(ge=0, lt=1e11)]
_SHOWN = 40
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


class Records(Generic[T]):
    """Files of one kind, which `read` reads; again only when they have changed. Safe to call from several threads."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[object, T | StudioError]] = {}

    def look(self, paths: Iterable[Path]) -> tuple[list[T], list[StudioError]]:
        """What is in those that are there, and what is wrong with the others."""
        known, found, damaged = {}, [], []
        for path in paths:
            if (pair := self._looked(path)) is None:
                continue
            known[path] = pair
            if isinstance(pair[1], StudioError):
                damaged.append(pair[1])
            else:
                found.append(pair[1])
        self._known = known
        return found, damaged

    def _looked(self, path: Path) -> tuple[object, T | StudioError] | None:
        try:
            stat = path.stat()
            stamp = stat.st_ino, stat.st_size, stat.st_mtime_ns
            known = self._known.get(path)
            return known if known is not None and known[0] == stamp else (stamp, self._read(path))
        except StudioError as error:
            return (stamp, error.bare()) if path.exists() else None
        except FileNotFoundError:
            return None
