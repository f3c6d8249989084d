"""Files for the tests of readers and writers, and what comes of them in short."""

from pathlib import Path

import pytest

from glmstudio.data.example import Example, Reject
from glmstudio.data.reading.reader import Reading, ReadOptions
from glmstudio.data.reading.reader import read as reading_of
from glmstudio.errors import StudioError


def put(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def opened(path: Path, **options) -> Reading:
    return reading_of(path, dataset="d", options=ReadOptions(**options))


def read(path: Path, **options) -> list[Example | Reject]:
    return list(opened(path, **options))


def good(rows: list) -> list[tuple[str, str, str]]:
    return [(row.instruction, row.input, row.target) for row in rows if isinstance(row, Example)]


def rejects(rows: list) -> list[tuple[int, str]]:
    return [(row.line, row.code) for row in rows if isinstance(row, Reject)]


def error_of(call) -> StudioError:
    with pytest.raises(StudioError) as caught:
        call()
    return caught.value
