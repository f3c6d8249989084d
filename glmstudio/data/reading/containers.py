"""Which files a path stands for: itself, what is packed in it, those of a folder. Packed files are read as they unpack,
and no further than a bound. Knows no rows.
"""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from glmstudio.errors import StudioError

# More than a million rows of a kilobyte, less than a disk.
MOST_UNPACKED = 8 << 30
MOST_FILES = 10_000
# Of what has to be in memory whole.
MOST_IN_MEMORY = 1 << 30
# NotImplementedError is a RuntimeError: a way of packing that Python does not know.
_UNPACKING = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError)
_ROWS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".xlsx", ".parquet")
_TEXTS = (".txt", ".md", ".markdown", ".docx")
_PACKED = (".gz", ".zip")
_OFFICE = {"xlsx": "xl/workbook.xml", "docx": "word/document.xml"}
_OTHER_KINDS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file (.xls, .doc)",
    b"Rar!\x1a\x07": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\xfd7zXZ\x00": "an xz file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"%PDF": "a PDF",
    b"SQLite format 3\x00": "an SQLite database",
}


@dataclass(frozen=True)
class Source:
    """One file. `name` is for people, `kind` is `text`, `xlsx`, `docx` or `parquet`; `open` gives its bytes, each time
    from the beginning."""

    name: str
    kind: str
    open: Callable[[], BinaryIO]
    # How messages tell it from the others of one import: empty where it is the only one.
    member: str = ""


class _Bounded(io.RawIOBase):
    """What is unpacked, up to `MOST_UNPACKED` bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._left = file, name, MOST_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            block = self._file.read(len(buffer))
        except _UNPACKING as error:
            raise StudioError("unpacking-failed", name=self._name, reason=str(error)) from error
        self._left -= len(block)
        if self._left < 0:
            raise StudioError("unpacked-too-large", name=self._name, most=MOST_UNPACKED >> 30)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()


def sources_of(path: Path, *, texts: bool = False) -> list[Source]:
    """The files of rows, or with `texts` the plain texts and documents, that are in `path`, at least one. One of
    several that is damaged is there, too, and raises when it is opened.

    Raises StudioError `file-missing`, `folder-empty`, `file-kind-unread` for what is no file of rows, `archive-empty`,
    `archive-encrypted`, `unpacking-failed`, `unpacked-too-large`.
    """
    endings = (*(_TEXTS if texts else _ROWS), *_PACKED)
    if path.is_dir():
        return _of_folder(path, endings)
    return _of_file(path, "", endings)


def _of_folder(folder: Path, endings: Sequence[str]) -> list[Source]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in endings and path.is_file() and not _is_hidden(path.relative_to(folder))
    ]
    if not files:
        raise StudioError("folder-empty", folder=str(folder), endings=", ".join(endings))
    if len(files) > MOST_FILES:
        raise StudioError("folder-too-many", folder=str(folder), count=len(files), most=MOST_FILES)
    sources = []
    for path in files:
        name = str(path.relative_to(folder))
        try:
            sources += _of_file(path, name, endings)
        except StudioError as error:
            sources.append(_broken(path.name, name, error))
    return sources


def _broken(name: str, member: str, error: StudioError) -> Source:
    def open_file() -> BinaryIO:
        raise error

    return Source(name, "text", open_file, member)


def _of_file(path: Path, member: str, endings: Sequence[str]) -> list[Source]:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise StudioError("file-missing", name=path.name, reason=error.strerror) from error
    if start.startswith(b"PK"):
        return _of_zip(path, member, endings)
    if start.startswith(b"\x1f\x8b"):
        return [_source(path.name, lambda: _unpacked(gzip.open(path), path.name), member)]
    return [_source(path.name, lambda: path.open("rb"), member, packed=False)]


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
    return io.BufferedReader(_Bounded(file, name), 1 << 20)


def _source(name: str, open_file: Callable[[], BinaryIO], member: str, *, packed: bool = True) -> Source:
    with open_file() as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        raise StudioError("file-kind-unread", name=name, kind="a tar archive")
    for magic, kind in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise StudioError("file-kind-unread", name=name, kind=kind)
    if not start.startswith(b"PAR1"):
        return Source(name, "text", open_file, member)
    return Source(name, "parquet", (lambda: whole(name, open_file)) if packed else open_file, member)


def _of_zip(path: Path, member: str, endings: Sequence[str]) -> list[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
    except _UNPACKING as error:
        raise StudioError("unpacking-failed", name=path.name, reason=str(error)) from error
    if sum(info.file_size for info in infos) > MOST_UNPACKED:
        raise StudioError("unpacked-too-large", name=path.name, most=MOST_UNPACKED >> 30)
    names = {info.filename for info in infos}
    for kind, part in _OFFICE.items():
        if part in names:
            _require_room(path.name, sum(info.file_size for info in infos))
            return [Source(path.name, kind, lambda: path.open("rb"), member)]
    if "[Content_Types].xml" in names:
        raise StudioError("file-kind-unread", name=path.name, kind="an Office document")
    endings = [ending for ending in endings if ending != ".zip"]
    infos = [info for info in infos if _is_wanted(info.filename, endings)]
    if not infos:
        raise StudioError("archive-empty", name=path.name, endings=", ".join(endings))
    if any(info.flag_bits & 1 for info in infos):
        raise StudioError("archive-encrypted", name=path.name)
    single = len(infos) == 1 and not member
    return [_member(path, info, "" if single else "/".join(filter(None, (member, _shown(info))))) for info in infos]


def _member(path: Path, info: zipfile.ZipInfo, member: str) -> Source:
    def open_file() -> BinaryIO:
        try:
            with zipfile.ZipFile(path) as archive:  # Its open member keeps the file.
                file = _unpacked(archive.open(info), path.name)
        except _UNPACKING as error:
            raise StudioError("unpacking-failed", name=path.name, reason=str(error)) from error
        return _unpacked(gzip.GzipFile(fileobj=file), path.name) if info.filename.endswith(".gz") else file

    name = f"{path.name}/{_shown(info)}"
    if (kind := PurePosixPath(info.filename).suffix.lower()[1:]) in _OFFICE:
        return Source(name, kind, lambda: _office(name, open_file), member)
    try:
        return _source(name, open_file, member)
    except StudioError as error:
        if not member:
            raise
        return _broken(name, member, error)


def _is_wanted(name: str, endings: Sequence[str]) -> bool:
    path = PurePosixPath(name)
    return not _is_hidden(path) and path.suffix.lower() in endings


def _is_hidden(path: PurePath) -> bool:
    """What systems, packers and Excel leave beside files."""
    return any(part.startswith((".", "~$", "__MACOSX")) for part in path.parts)


def _shown(info: zipfile.ZipInfo) -> str:
    """The member's name; packers on Chinese Windows write it in GBK without saying so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("gb18030")
    except UnicodeError:
        return info.filename


def whole(name: str, open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """What can only be read with all of it at hand. Raises StudioError `unpacked-too-large`."""
    with open_file() as file:
        content = file.read(MOST_IN_MEMORY + 1)
    _require_room(name, len(content))
    return io.BytesIO(content)


def _office(name: str, open_file: Callable[[], BinaryIO]) -> BinaryIO:
    """A packed workbook or document, which is packed itself."""
    content = whole(name, open_file)
    try:
        with zipfile.ZipFile(content) as archive:
            _require_room(name, sum(info.file_size for info in archive.infolist()))
    except _UNPACKING as error:
        raise StudioError("unpacking-failed", name=name, reason=str(error)) from error
    content.seek(0)
    return content


def _require_room(name: str, size: int) -> None:
    if size > MOST_IN_MEMORY:
        raise StudioError("unpacked-too-large", name=name, most=MOST_IN_MEMORY >> 30)
