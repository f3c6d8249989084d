"""Which classes and functions a pickle would call, read from its instructions without running any of them.

Knows torch's two file forms; opens nothing with pickle or torch.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

TABLE_BYTES = 64 * 2**20
# What a table of tensors is made of.
HARMLESS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch(\.storage)?\.\w*Storage"
    r"|torch\.(serialization\._get_layout|Size|device|b?float\w*|u?int\w*|bool)"
)


def code_in_pickle(file: Path) -> list[str]:
    """The names of a checkpoint's pickle that a table of tensors does not need, as "module.name", in their order."""
    try:
        with zipfile.ZipFile(file) as archive:
            table = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            data = archive.read(table)
    except (zipfile.BadZipFile, StopIteration):
        with file.open("rb") as stream:
            data = stream.read(TABLE_BYTES)
    return [name for name in dict.fromkeys(_names(data)) if not HARMLESS.fullmatch(name)]


def _names(data: bytes) -> Iterator[str]:
    """Every global that the pickles at the head of `data` name."""
    stream, texts = io.BytesIO(data), [""]
    # torch's older form is five of them, the fourth is the table; the numbers come behind.
    for _ in range(5):
        try:
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name in ("GLOBAL", "INST"):
                    yield argument.replace(" ", ".")
                elif operation.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts.append(argument)
        except Exception:  # Rubbish makes the reader fail in many ways, and holds no further names.
            return
