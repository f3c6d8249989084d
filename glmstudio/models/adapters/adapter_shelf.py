"""Which finished adapters are on the base, which of them are in use, and which one has to go. Knows no tensor."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_version import AdapterVersion

KEPT_ADAPTERS = 4


class AdapterShelf:
    """At most `KEPT_ADAPTERS`, by name. One that is in use never has to go. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The least recently used first.
        self._kept: dict[str, AdapterVersion] = {}
        self._uses: Counter[str] = Counter()

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._kept))

    @property
    def versions(self) -> list[AdapterVersion]:
        with self._lock:
            return list(self._kept.values())

    def has(self, name: str, version: AdapterVersion) -> bool:
        """Whether the adapter called `name` is of this content."""
        kept = self._kept.get(name)
        return kept is not None and kept.digest == version.digest

    def put(self, name: str, version: AdapterVersion) -> None:
        with self._lock:
            self._kept[name] = version

    def touch(self, names: Iterable[str]) -> None:
        """They were just used. Raises KeyError for a name that is not here."""
        with self._lock:
            for name in names:
                self._kept[name] = self._kept.pop(name)

    def remove(self, name: str) -> None:
        with self._lock:
            self._kept.pop(name, None)

    def begin_use(self, name: str) -> None:
        with self._lock:
            self._uses[name] += 1

    def end_use(self, name: str) -> None:
        with self._lock:
            self._uses[name] -= 1

    def leaving(self) -> list[str]:
        """The names that have to go so that there is room for one more, the least recently used first.

        Raises StudioError `adapters-busy` where all are in use.
        """
        with self._lock:
            idle = [name for name in self._kept if not self._uses[name]]
            too_many = len(self._kept) + 1 - KEPT_ADAPTERS
            if too_many > len(idle):
                folders = ", ".join(str(version.form.path) for version in self._kept.values())
                raise StudioError("adapters-busy", count=KEPT_ADAPTERS, folders=folders)
            return idle[: max(0, too_many)]
