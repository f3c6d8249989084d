"""What the engine is asked: a prompt's ids for an adapter."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A prompt's ids and the adapter that answers it, `"__base__"` for none."""

    ids: list[int]
    adapter: str
