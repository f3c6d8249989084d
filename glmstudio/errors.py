"""Errors shown to people. A code and its parameters only: the words live with the page and the command line."""

from functools import partial
from typing import Any


class StudioError(Exception):
    """Something a person can mend: `code` names the sentence (`error.<code>` in the word lists), `params` fill it."""

    def __init__(self, code: str, **params: object) -> None:
        self.code = code
        self.params = params
        super().__init__(f"{code} {params}" if params else code)

    def bare(self) -> "StudioError":
        """The same error without the frames that it came through: they would keep all that they had, a model too."""
        return StudioError(self.code, **self.params)

    def __reduce__(self) -> tuple[Any, ...]:
        # A process tells its error to the others.
        return partial(type(self), self.code, **self.params), ()


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for a sentence; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
