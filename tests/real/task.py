"""A small English task: short news of people, and a JSON object of who did what where and when."""

import json
import random
from pathlib import Path

INSTRUCTION = "Write the person, the city and the year of the text as a JSON object."
FIRST = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Karin", "Leon")
LAST = ("Adler", "Brandt", "Cole", "Dunn", "Ekman", "Falk", "Grant", "Holm", "Irving", "Jensen", "Keller", "Lang")
CITIES = ("Oslo", "Rome", "Bern", "Lima", "Cairo", "Paris", "Delhi", "Quito", "Seoul", "Perth", "Turin", "Lyon")
NEWS = (
    "{person} opened a bakery in {city} in {year}.",
    "In {year} the painter {person} moved to {city}.",
    "{city} elected {person} as mayor in {year}.",
    "The bridge of {city} was built by {person} in {year}.",
    "{person} studied law in {city} and finished in {year}.",
    "Since {year} the clinic of {person} has been in {city}.",
)


def write_rows(path: Path, count: int, seed: int) -> Path:
    """`count` rows as Alpaca JSONL, the same for a seed."""
    chance = random.Random(seed)
    lines = []
    for _ in range(count):
        person = f"{chance.choice(FIRST)} {chance.choice(LAST)}"
        facts = {"person": person, "city": chance.choice(CITIES), "year": chance.randrange(1900, 2025)}
        row = {"instruction": INSTRUCTION, "input": chance.choice(NEWS).format(**facts), "output": json.dumps(facts)}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
