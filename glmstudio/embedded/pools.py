"""Reads the generator's plain-text pools in text/: sections headed by [name], one entry a line. Knows no meaning."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "text"


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """The sections of text/<name>.txt in order: heading → its lines, blank lines left out, other blanks kept."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith("[") and line.endswith("]") and len(line) > 3:
            lines = found.setdefault(line[1:-1], [])
        elif line:
            lines.append(line)
    return {heading: tuple(entries) for heading, entries in found.items()}


@cache
def words(name: str, section: str) -> tuple[str, ...]:
    """The words of a section, parted by blanks or lines."""
    return tuple(word for line in sections(name)[section] for word in line.split())
