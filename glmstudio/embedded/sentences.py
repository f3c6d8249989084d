"""Composes encyclopedic sentences with the facts they state. Knows no task, no prompt and no token.

`compose(random)` returns a `Passage`: a text and its facts in the order of the text, every name of a fact verbatim in
the text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import NamedTuple

from glmstudio.embedded import names, pools
from glmstudio.embedded.domains import INVERSE, Domain, domains
from glmstudio.embedded.makers import MAKERS

Template = tuple[tuple[bool, str], ...]
Makers = Mapping[str, Callable[[Random], str]]


class Fact(NamedTuple):
    """One relation between two names, with the kinds of both."""

    subject: str
    relation: str
    object: str
    subject_type: str
    object_type: str


@dataclass
class Passage:
    """A text, its facts without repetition, and the domain of its first sentence."""

    text: str
    facts: list[Fact]
    domain: str


_SLOT = re.compile(r"\{([^}]*)\}")


def _cut(template: str) -> Template:
    """(is it a slot?, text) in order."""
    return tuple((bool(i % 2), part) for i, part in enumerate(_SLOT.split(template)) if part)


@cache
def _templates(source: str, domain: str) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    row = domains(source)[domain]
    return tuple(map(_cut, row.openers)), tuple(map(_cut, row.clauses))


@cache
def _fillers(kind: str) -> tuple[Template, ...]:
    return tuple(map(_cut, pools.sections("phrases")["sentence " + kind]))


@dataclass
class Writer:
    """Fills the templates of one subject, and remembers names and facts."""

    random: Random
    domain: Domain
    subject: str
    makers: Makers
    drawn: dict[str, list[str]] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)

    def fill(self, template: Template) -> str:
        """The text of a template."""
        return "".join(self._slot(part) if is_slot else part for is_slot, part in template)

    def _slot(self, slot: str) -> str:
        if slot == "S":
            return self.subject
        if slot[0] == ".":
            return self.makers[slot[1:]](self.random)
        if slot[0] == "~":
            return self._works(slot[1:].rstrip("*"))
        return self._objects(slot.rstrip("*"), slot[-1] == "*")

    def _objects(self, relation: str, many: bool) -> str:
        maker, object_type, subject_type = self.domain.relations[relation]
        if relation not in self.drawn:
            make = self.makers[maker]
            self.drawn[relation] = names.several(self.random, make) if many else [make(self.random)]
            for name in self.drawn[relation]:
                self.facts.append(Fact(self.subject, relation, name, subject_type, object_type))
                if relation in INVERSE:
                    self.facts.append(Fact(name, INVERSE[relation], self.subject, subject_type, object_type))
        return join_names(self.random, self.drawn[relation])

    def _works(self, relation: str) -> str:
        _, object_type, subject_type = self.domain.relations[relation]
        titles = names.several(self.random, self.makers["title"], 5)
        self.facts += [Fact(title, relation, self.subject, subject_type, object_type) for title in titles]
        return self.random.choice(("", "、", "，", "和")).join(f"《{title}》" for title in titles)


def join_names(r: Random, items: list[str]) -> str:
    """Names in one of the ways people write several of them: commas, and a word or comma before the last."""
    if len(items) == 1:
        return items[0]
    comma = r.choice(("、", "、", "、", "，", "，", " ", ","))
    last = r.choice((comma, comma, "和", "、", "与", "及", "以及"))
    return comma.join(items[:-1]) + last + items[-1]


def _sentence(r: Random, name: str, subject: str = "") -> tuple[str, Writer]:
    domain = domains("domains")[name]
    writer = Writer(r, domain, subject or MAKERS[domain.subject](r), MAKERS)
    openers, clauses = _templates("domains", name)
    parts = [writer.fill(r.choice(openers))]
    for clause in r.sample(clauses, r.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 5))):
        slots = [part.rstrip("*") for is_slot, part in clause if is_slot and part[0] not in ".~S"]
        if not slots or any(slot not in writer.drawn for slot in slots):
            parts.append(writer.fill(clause))
    if r.random() < 0.25:
        parts.append(writer.fill(r.choice(_fillers("tails"))))
    if r.random() < 0.15:
        parts[0] = writer.fill(r.choice(_fillers("heads"))) + parts[0]
    if r.random() < 0.1:
        parts[0] = _remark(r, parts[0], writer)
    end = r.choice(("。", "。", "。", "。", "", "！", "；"))
    return r.choice(("，", "，", "，", "，", "；", "。", " ")).join(parts) + end, writer


def _remark(r: Random, text: str, writer: Writer) -> str:
    """The text with something in brackets behind the subject, which is not part of the name."""
    name = writer.subject + "》" if writer.subject + "》" in text else writer.subject
    return text.replace(name, name + writer.fill(r.choice(_fillers("remarks"))), 1)


def _any_domain(r: Random) -> str:
    rows = domains("domains")
    return r.choices(list(rows), [row.weight for row in rows.values()])[0]


def compose(r: Random, domain: str = "") -> Passage:
    """One or two sentences of a random domain (or of domain), their facts in the order of the text."""
    name = domain or _any_domain(r)
    text, writer = _sentence(r, name)
    facts = writer.facts
    kind = r.random()
    if kind < 0.06:
        text = writer.fill(r.choice(_fillers("alone"))) + text
    elif kind < 0.12:
        text += writer.fill(r.choice(_fillers("alone")))
    elif kind < 0.2:
        other, follower = _sentence(r, *_follow(r, name, writer))
        text, facts = text + other, facts + follower.facts
    return Passage(text, list(dict.fromkeys(facts)), name)


def _follow(r: Random, name: str, writer: Writer) -> tuple[str, str]:
    """What a second sentence is about: a person of the first one, or another thing of its kind."""
    people = [fact.object for fact in writer.facts if fact.object_type == "人物"]
    if people and r.random() < 0.6:
        return r.choice(("person", "family", "singer")), r.choice(people)
    return (name, "") if r.random() < 0.6 else (_any_domain(r), "")


def write_clauses(r: Random, source: str, name: str, subject: str, makers: Makers, most: int) -> tuple[str, list[Fact]]:
    """A plain sentence of domain name in text/<source>.txt about subject: an opener and up to most clauses."""
    writer = Writer(r, domains(source)[name], subject, makers)
    openers, clauses = _templates(source, name)
    parts = [writer.fill(r.choice(openers))]
    for clause in r.sample(clauses, min(len(clauses), r.randint(0, most))):
        slots = [part.rstrip("*") for is_slot, part in clause if is_slot and part[0] not in ".~S"]
        if not slots or any(slot not in writer.drawn for slot in slots):
            parts.append(writer.fill(clause))
    return "，".join(parts) + "。", list(dict.fromkeys(writer.facts))
