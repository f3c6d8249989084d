"""What the generated encyclopedia is about: kinds of things, their relations, and clauses that state them.

The rows stand in text/<name>.txt. Slots of a clause: {S} the subject; {r} one object of relation r, which makes a fact;
{r*} one to six objects, joined; {~r*} one to five subjects of which {S} is the object; {.maker} a filler, no fact.
Knows no randomness and no task.
"""

from functools import cache
from typing import NamedTuple

from glmstudio.embedded import pools

INVERSE = {"丈夫": "妻子", "妻子": "丈夫"}


class Domain(NamedTuple):
    """One kind of thing. relations: name → (maker of the object, object type, subject type)."""

    subject: str
    weight: float
    relations: dict[str, tuple[str, str, str]]
    openers: tuple[str, ...]
    clauses: tuple[str, ...]


@cache
def domains(name: str) -> dict[str, Domain]:
    """The domains of text/<name>.txt: "> " begins an opener, "+ " a clause, other lines a named value."""
    return {heading: _domain(lines) for heading, lines in pools.sections(name).items()}


def _domain(lines: tuple[str, ...]) -> Domain:
    rows = [line.partition(" ")[::2] for line in lines]
    values = {head: rest for head, rest in rows if head in ("subject", "weight")}
    relations = [rest.split() for head, rest in rows if head == "relation"]
    return Domain(
        values["subject"],
        float(values["weight"]),
        {relation: tuple(kinds) for relation, *kinds in relations},
        tuple(rest for head, rest in rows if head == ">"),
        tuple(rest for head, rest in rows if head == "+"),
    )
