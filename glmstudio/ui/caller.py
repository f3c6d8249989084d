"""Who calls: the person whose request is being answered, told once where requests come in, so that no handler has to
hand it on, nor can forget to. Knows no tab and no verb."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from glmstudio.studio.people import Person

_calling: ContextVar[Person] = ContextVar("calling")


def calling() -> Person:
    """Raises LookupError where no request is being answered: nobody gets in by chance."""
    return _calling.get()


@contextmanager
def called_by(person: Person) -> Iterator[None]:
    """What runs within, in threads that Gradio takes for it too, is that person's."""
    before = _calling.set(person)
    try:
        yield
    finally:
        _calling.reset(before)


def person_named(name: str | None) -> Person:
    """Who logged in with that name, which nobody has on a page without a password. Everybody is the owner."""
    return Person(name or "", "owner")
