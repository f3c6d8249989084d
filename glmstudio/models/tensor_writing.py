"""Safetensors files that others on the machine may read as they may any other new file. Knows names and tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(named: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes one safetensors file, whole or not at all, marked as torch's for transformers."""
    with usual_mode(path):
        save_file(dict(named), path, metadata={"format": "pt"})


@contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """Within, `path` may be written by safetensors, which puts a file of its own there that only its owner may read;
    afterwards `path` has the permissions that the umask, or the file that was there, gives."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)
