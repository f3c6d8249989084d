"""What the tensors in a folder's files are to the model of its config. Knows names and shapes, no numbers."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class StoredTensors:
    """`tensors` are the model's, on "meta". `names_of(file, name, value)` gives those of them that a stored one
    becomes, or raises StudioError where it becomes none; `stored(name)` is the way back. `renames`: transformers may
    give its own names while loading, which only itself knows, so that a name that is not found proves nothing."""

    tensors: dict[str, torch.Tensor]
    names_of: Callable[[Path, str, torch.Tensor], Collection[str]]
    stored: Callable[[str], str] = str
    renames: bool = False
