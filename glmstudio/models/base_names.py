"""What bases are called: names that hold in every working folder and on other machines, and whether two are one base.

Knows no hub and no weights; of a base's files it reads the config alone.
"""

import json
import os
import re
from pathlib import Path, PurePath

EMBEDDED = "embedded"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def absolute(source: str) -> str:
    """A source that means the same from every working folder: the whole path of a folder, else as it is."""
    if source == EMBEDDED or not (folder := Path(source).expanduser()).is_dir():
        return source
    # Behind a link, `..` is not the folder before it in the text.
    return str(folder.resolve() if ".." in folder.parts else os.path.abspath(folder))


def same_source(one: str, other: str) -> bool:
    """Whether both lead to the same folder, or are the same name."""
    if one == other:
        return True
    if EMBEDDED in (one, other):
        return False
    folders = [Path(source).expanduser() for source in (one, other)]
    return all(folder.is_dir() for folder in folders) and folders[0].resolve() == folders[1].resolve()


def other_weights(one: str, other: str) -> bool:
    """Whether two fingerprints are of weights in the same form that are not the same. One that is "", or of weights in
    another form (half precision, quantised, renamed), proves nothing."""
    return one != other and bool(one) and one.partition("-")[0] == other.partition("-")[0]


def same_base(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two (source, fingerprint) are of one base: by content where that can tell, else by their last names. A
    folder may have been moved, and a hub id may be a folder now."""
    (source, content), (other_source, other_content) = one, other
    if content and content == other_content:
        return True
    return not other_weights(content, other_content) and PurePath(source).name == PurePath(other_source).name


def public_name(source: str | None) -> str:
    """What `source` is called on other machines: the hub id that it is or was downloaded as, else its last folder.

    Knows the folders in which the Hugging Face and the ModelScope client keep their downloads, and the name in an
    original config.json.
    """
    if not source:
        return "unknown"
    path = Path(source).expanduser()
    for part in path.parts:
        if part.startswith("models--") and part.count("--") >= 2:
            return part.removeprefix("models--").replace("--", "/", 1)
    if not path.exists() and not path.is_absolute():
        return source.partition(":")[2] or source
    parents = [parent.name for parent in path.parents]
    if "modelscope" in parents and len(parents) > 1:
        return f"{parents[0]}/{path.name}"
    named = _recorded_name(path / "config.json")
    return named if HUB_NAME.fullmatch(named) else path.resolve().name


def _recorded_name(config: Path) -> str:
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
