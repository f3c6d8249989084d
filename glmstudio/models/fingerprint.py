"""What weights lie in a model folder, told by their content: the same behind every name, path, copy and cut into files.

Looks at the form of every tensor and at samples of its numbers, never at all of them. Knows no model class.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from glmstudio.models.checkpoint_files import tensors, weight_files

# Of every tensor so many pieces of so many bytes, spread evenly. A training step changes numbers everywhere.
PIECES, PIECE_BYTES = 8, 128
_FORM_LENGTH, _CONTENT_LENGTH = 12, 20

_Stamp = tuple[tuple[str, int, int], ...]
_known: dict[_Stamp, str] = {}


def fingerprint(folder: Path) -> str:
    """ "<form>-<content>" of the weights in a folder, hexadecimal digits; kept while the files stay as they are.

    The form tells names, shapes and number types of all tensors, the content their numbers. The other numbers of a
    fine-tuned model change the content alone; half precision, quantisation and another way of naming change the form.
    Pickles of torch before 1.6, which cannot be mapped, are read whole once.
    Raises StudioError as `weight_files` and `tensors` do.
    """
    files = weight_files(folder)
    stamp = _stamp(files)
    if stamp not in _known:
        _known[stamp] = _computed(files)
    return _known[stamp]


def _computed(files: list[Path]) -> str:
    # By name over all files: shards are cut in many ways.
    looked = sorted(line for file in files for line in _lines(file))
    form, content = hashlib.sha256(), hashlib.sha256()
    for told, sampled in looked:
        form.update(told)
        content.update(told + sampled)
    return f"{form.hexdigest()[:_FORM_LENGTH]}-{content.hexdigest()[:_CONTENT_LENGTH]}"


def _lines(file: Path) -> Iterator[tuple[bytes, bytes]]:
    """(form, digest of samples) of every tensor in a file."""
    for name, value in tensors(file):
        form = f"{name} {list(value.shape)} {value.dtype}\n"
        yield form.encode(), hashlib.sha256(_sample(value)).digest()


def _sample(value: torch.Tensor) -> bytes:
    # The files are mapped: only these pages are read.
    raw = value.contiguous().reshape(-1).view(torch.uint8)
    if len(raw) <= PIECES * PIECE_BYTES:
        return raw.numpy().tobytes()
    last = len(raw) - PIECE_BYTES
    starts = (last * piece // (PIECES - 1) for piece in range(PIECES))
    return b"".join(raw[start : start + PIECE_BYTES].numpy().tobytes() for start in starts)


def _stamp(files: list[Path]) -> _Stamp:
    stats = [(os.path.realpath(file), file.stat()) for file in files]
    return tuple((path, found.st_size, found.st_mtime_ns) for path, found in stats)
