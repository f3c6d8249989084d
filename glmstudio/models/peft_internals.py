"""What is used here of PEFT that it keeps to itself: a later version may move any of it, and a test says what."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper


def holds_copy(layer: AuxiliaryTrainingWrapper, name: str) -> bool:
    """Whether a layer that is trained in full beside LoRA has a copy for the adapter `name`."""
    return name in layer._adapters


@contextmanager
def without_adapters(layers: Iterable[BaseTunerLayer]) -> Iterator[None]:
    """Within, the layers compute the base alone. PEFT's own switch would also make finished adapters trainable when it
    is put back."""
    layers = list(layers)
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@contextmanager
def one_active(layer: Any, name: str) -> Iterator[None]:
    """Within, a layer computes the adapter `name`, whose weights may not ask for gradients: nothing else changes."""
    before, layer._active_adapter = layer._active_adapter, [name]
    try:
        yield
    finally:
        layer._active_adapter = before
