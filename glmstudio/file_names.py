"""Names that people give, and the file names made of them: what a new name may be, and one way from any name to a file.

Pure: touches no disk.
"""

import hashlib
import re
import unicodedata

from glmstudio.errors import StudioError

LONGEST = 100
_MOST_BYTES = 100
_UNFIT = re.compile(r'[/\\:*?"<>|]')
# Windows takes these for devices, with any ending behind them.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_LOOKS_MADE = re.compile(r"-[0-9a-f]{8}$")


def is_fit(name: str) -> bool:
    """Whether a new thing may be called so: see `require_fit`."""
    return (
        0 < len(name) <= LONGEST
        and name == name.strip(". ")
        and not _UNFIT.search(name)
        # Control and format characters, halves of pairs, separators of lines.
        and not any(unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp") for char in name)
        and not _DEVICE.fullmatch(name)
    )


def require_fit(name: str) -> None:
    """Raise StudioError `name-empty` or `name-unfit` for a name that no new dataset, run or export may have: with a
    path separator or another of / \\ : * ? " < > |, a control character, a dot or blank at an end, more than
    `LONGEST` characters, or one that Windows keeps for a device."""
    if not name.strip():
        raise StudioError("name-empty")
    if not is_fit(name):
        raise StudioError("name-unfit", name=shown(name), most=LONGEST)


def shown(name: str) -> str:
    """The name for people, on one line, characters that cannot be seen written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in name
    )


def file_name(name: str) -> str:
    """A part of a file name for any name: letters of every script stay, and two names never give one file, on systems
    that do not tell capitals apart either. At most 110 bytes in UTF-8, without separators, dot or blank at the front.

    A name of small letters, digits, `-`, `_` and dots stays as it is; any other one gets eight hex digits behind it.
    """
    plain = unicodedata.normalize("NFC", name)
    cleaned = re.sub(r"[^\w.-]+", "_", plain).strip(".") or "_"
    cleaned = cleaned.encode()[:_MOST_BYTES].decode(errors="ignore")
    if _DEVICE.fullmatch(cleaned):
        cleaned = f"_{cleaned}"
    if cleaned == name == name.casefold() and not _LOOKS_MADE.search(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cleaned}-{digest}"
