"""Ways in which a file of the program is damaged."""

from pathlib import Path

import pytest


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As if this file were somebody else's; the administrator, whom tests may run as, reads everything."""
    read = Path.read_bytes

    def refused(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
