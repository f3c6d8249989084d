"""What differs between two texts, as spans of each. Pure: knows no page and no colour."""

import re
from itertools import islice
from typing import NamedTuple

# A Latin word or number is one unit, every other character its own: Chinese has no blanks to cut at.
UNITS = re.compile(r"[A-Za-z0-9_]+|\s+|.", re.DOTALL)
# Of each text; far more than an answer that somebody reads.
MOST_UNITS = 20_000


class Span(NamedTuple):
    """`kind` is `same` or `different`."""

    kind: str
    text: str


def difference(left: str, right: str) -> tuple[list[Span], list[Span]]:
    """The spans of both texts, in order and complete: joined they give the texts back, and the `same` ones are equal.

    Equal units (Latin words, other characters) are matched by a longest common subsequence; where they are mere
    islands in something rewritten they count as different, so that the marks can be read. The time is about
    len(left) * len(right) / 64 machine steps, however repetitive the texts are; what lies behind `MOST_UNITS` units is
    compared with nothing and counts as different.
    """
    (left_units, left_rest), (right_units, right_rest) = _units(left), _units(right)
    passages = _without_islands([*_passages(left_units, right_units), ("", left_rest, right_rest)])
    return _spans((same, gone) for same, gone, _ in passages), _spans((same, new) for same, _, new in passages)


def _units(text: str) -> tuple[list[str], str]:
    """(the first units, the rest of the text)."""
    found = [unit[0] for unit in islice(UNITS.finditer(text), MOST_UNITS)]
    return found, text[sum(map(len, found)) :]


def _passages(left: list[str], right: list[str]) -> list[tuple[str, str, str]]:
    """(same text, then what only the left has, then what only the right has), in order."""
    passages = [["", "", ""]]
    i = j = 0
    for match_i, match_j in [*_matches(left, right), (len(left), len(right))]:
        if (i, j) != (match_i, match_j):
            passages[-1][1] += "".join(left[i:match_i])
            passages[-1][2] += "".join(right[j:match_j])
            passages.append(["", "", ""])
        if match_i < len(left):
            passages[-1][0] += left[match_i]
        i, j = match_i + 1, match_j + 1
    return [(same, gone, new) for same, gone, new in passages]


def _matches(left: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Pairs of places of a longest common subsequence, ascending.

    Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): after j units of `right`, bit i of a row
    is 0 where unit i of `left` makes the common subsequence longer. Python's integers hold a row of any length.
    """
    places: dict[str, int] = {}
    for i, unit in enumerate(left):
        places[unit] = places.get(unit, 0) | 1 << i
    every = (1 << len(left)) - 1
    rows = [every]
    for unit in right:
        hits = rows[-1] & places.get(unit, 0)
        rows.append(((rows[-1] + hits) | (rows[-1] - hits)) & every)
    found = []
    i, j = len(left), len(right)
    while i and j:
        if rows[j] >> (i - 1) & 1:
            i -= 1
        elif not rows[j - 1] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]


def _without_islands(passages: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Joins two changes where the same text between them is no longer than either."""
    kept: list[tuple[str, str, str]] = []
    for passage in passages:
        kept.append(passage)
        while len(kept) > 1:
            (same, gone, new), (island, gone_after, new_after) = kept[-2:]
            if len(island) > min(max(len(gone), len(new)), max(len(gone_after), len(new_after))):
                break
            kept[-2:] = [(same, gone + island + gone_after, new + island + new_after)]
    return kept


def _spans(passages) -> list[Span]:
    return [
        Span(kind, text) for pair in passages for kind, text in zip(("same", "different"), pair, strict=True) if text
    ]
