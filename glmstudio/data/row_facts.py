"""What is known of a row without its texts, and everything worth knowing about many of them: duplicates, leaks.

Pure. Two texts are the same where their digests are: nobody has to hold the texts of all rows to compare them.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from glmstudio.data.example import Example
from glmstudio.data.quality import RAW_CONTEXT_TAG, Finding, json_state

_SEVERITIES = {"raw-context": "info"}
_CODES = (
    "empty-prompt",
    "empty-target",
    "broken-json",
    "dev-leak",
    "conflicting-targets",
    "duplicate-rows",
    "raw-context",
)


class RowFacts(NamedTuple):
    """`place` tells a row: its id, or its 1-based place among rows that have none. `content` is a digest of its three
    texts as they are, `prompt` and `target` of texts without the blanks around them; `characters` counts them. `codes`
    are those of what is odd about the row by itself."""

    place: int
    split: str
    content: bytes
    prompt: bytes
    target: bytes
    characters: int
    codes: tuple[str, ...]


def facts_of(example: Example, place: int) -> RowFacts:
    """`place` is for a row without an id."""
    instruction, input, target = example.instruction, example.input, example.target
    return RowFacts(
        place if example.id is None else example.id,
        example.split,
        content_of((instruction, input, target)),
        _digest(instruction.strip(), input.strip()),
        _digest(target.strip()),
        len(instruction) + len(input) + len(target),
        tuple(_row_codes(example)),
    )


def content_of(texts: tuple[str, str, str]) -> bytes:
    """The digest of a row's instruction, input and target."""
    return _digest(*texts)


def dataset_findings(examples: Iterable[Example]) -> list[Finding]:
    """As `findings_of`, from rows with their texts."""
    return findings_of([facts_of(example, place) for place, example in enumerate(examples, start=1)])


def findings_of(rows: Sequence[RowFacts]) -> list[Finding]:
    """Everything worth knowing about the rows, at once, each kind at most once: `empty-prompt`, `empty-target`,
    `broken-json`, `dev-leak` (dev rows whose prompt is in train), `conflicting-targets` (one prompt, several targets in
    one split), `duplicate-rows` (all but the first of equal rows) and `raw-context`."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for code in row.codes:
            found[code].append(row.place)
    asked = Counter((row.split, row.prompt) for row in rows)
    again = [row for row in rows if asked[row.split, row.prompt] > 1]
    first_places: dict[tuple[str, bytes], dict[bytes, int]] = defaultdict(dict)
    for row in again:
        targets = first_places[row.split, row.prompt]
        if row.target in targets:
            found["duplicate-rows"].append(row.place)
        else:
            targets[row.target] = row.place
    for targets in first_places.values():
        if len(targets) > 1:
            found["conflicting-targets"].extend(targets.values())
    leaks: dict[bytes, list[int]] = defaultdict(list)
    for row in rows:
        if row.split == "dev" and ("train", row.prompt) in asked:
            leaks[row.prompt].append(row.place)
    found["dev-leak"] = [place for places in leaks.values() for place in places]
    return [
        Finding(code, _SEVERITIES.get(code, "warning"), len(found[code]), tuple(found[code]))
        for code in _CODES
        if found[code]
    ]


def _digest(*texts: str) -> bytes:
    # Lengths keep texts apart that are the same when joined.
    whole = f"{[len(text) for text in texts]}{''.join(texts)}"
    # Rows of lists that never saw a database may hold half of a character.
    return hashlib.blake2b(whole.encode(errors="surrogatepass"), digest_size=16).digest()


def _row_codes(example: Example) -> Iterator[str]:
    if not example.instruction.strip() and not example.input.strip():
        yield "empty-prompt"
    if not example.target.strip():
        yield "empty-target"
    if json_state(example.target) == "broken":
        yield "broken-json"
    if RAW_CONTEXT_TAG in example.tags and not example.instruction:
        yield "raw-context"
