"""Imports Gradio without its stub files: a third of the time that the page needs to answer. Knows nothing else."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_stub_files() -> Iterator[None]:
    """At its import Gradio parses the source of every component to write a `.pyi` file beside it, ours included. It
    leaves out a component whose source it cannot find; inside this context it finds none. Not for several threads."""
    getfile = inspect.getfile

    def found(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith(("gradio.", "glmstudio.")):
            raise OSError(f"{thing.__name__} gets no stub file")
        return getfile(thing)

    inspect.getfile = found
    try:
        yield
    finally:
        inspect.getfile = getfile
