"""Which rows a dataset has already, so that a file that is imported again brings only what is new. Pure."""

from collections.abc import Iterable

from glmstudio.data.example import Example


class KnownRows:
    """Made of (split, instruction, input, target) of each row; it keeps hashes, about 100 bytes a row."""

    def __init__(self, rows: Iterable[tuple[str, str, str, str]] = ()) -> None:
        self._rows: set[int] = set()
        self._prompts: set[int] = set()
        for row in rows:
            self._rows.add(hash(row))
            self._prompts.add(hash(row[:3]))

    def has(self, example: Example) -> bool:
        """Whether the same row is there; of one without target, whether its prompt is: somebody answered it since."""
        prompt = (example.split, example.instruction, example.input)
        if not example.target.strip():
            return hash(prompt) in self._prompts
        return hash((*prompt, example.target)) in self._rows
