"""Rows for a benchmark: synthetic ones of a real data set's lengths, or a file's. Knows numbers as words, no model.

A word is the decimal form of a token id; `random_base.number_tokenizer` reads it back as that one token.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from glmstudio.data.example import Example
from glmstudio.data.reading.reader import read
from glmstudio.errors import StudioError

# Real extraction and review rows under a ChatGLM tokenizer: 141 tokens in the mean, 450 at most, log-normal in between;
# 63 of them are targets: 9 % of the 700 slots that such a row is padded to in older scripts.
MEAN_TOKENS, LEAST_TOKENS, MOST_TOKENS, SPREAD = 141, 40, 450, 0.45
TARGET_SHARE = (0.25, 0.65)
# All rows begin with the same instruction, as rows of one task do.
INSTRUCTION_TOKENS = 20
# "Instruction:", "Input:" and "Answer:" are a token each, and the end is one.
AROUND_TOKENS = 4
FIRST_WORD = 16
MOST_TARGET_TOKENS = 290


def synthetic_rows(count: int, vocabulary: int) -> list[Example]:
    """The same `count` rows every time: lengths are the quantiles of the distribution, so few rows have its mean, too.

    Ids are drawn evenly from `FIRST_WORD` to `vocabulary` - 1.
    """
    dice = random.Random(20)
    instruction = _words(dice, INSTRUCTION_TOKENS, vocabulary)
    shape = NormalDist(0, SPREAD)
    factor = MEAN_TOKENS / 2.718281828 ** (SPREAD**2 / 2)
    rows = []
    for number in range(count):
        length = factor * 2.718281828 ** shape.inv_cdf((number + 0.5) / count)
        length = round(min(max(length, LEAST_TOKENS), MOST_TOKENS))
        target = min(round(length * dice.uniform(*TARGET_SHARE)), MOST_TARGET_TOKENS)
        context = max(1, length - target - INSTRUCTION_TOKENS - AROUND_TOKENS)
        rows.append(Example(instruction, _words(dice, context, vocabulary), _words(dice, target, vocabulary)))
    dice.shuffle(rows)
    return rows


def file_rows(path: Path, count: int, vocabulary: int) -> list[Example]:
    """The first `count` rows of a data file as number words: each id of the embedded base's tokenizer, folded into
    `vocabulary`. Lengths and repetitions are those of the file. Raises StudioError `bench-rows` where it has fewer."""
    from glmstudio.models.loading import load_tokenizer
    from glmstudio.models.sources import embedded_folder

    tokenizer = load_tokenizer(embedded_folder())

    def folded(text: str) -> str:
        ids = tokenizer.encode(text, add_special_tokens=False)
        return " ".join(str(FIRST_WORD + number % (vocabulary - FIRST_WORD)) for number in ids)

    good = [row for row in read(path, dataset="bench") if isinstance(row, Example)]
    if len(good) < count:
        raise StudioError("bench-rows", file=str(path), rows=len(good), needed=count)
    return [Example(folded(row.instruction), folded(row.input), folded(row.target)) for row in good[:count]]


def bench_rows(file: str, count: int, vocabulary: int) -> Sequence[Example]:
    """`file_rows` of a file, `synthetic_rows` for an empty name."""
    return file_rows(Path(file), count, vocabulary) if file else synthetic_rows(count, vocabulary)


def _words(dice: random.Random, count: int, vocabulary: int) -> str:
    return " ".join(str(dice.randrange(FIRST_WORD, vocabulary)) for _ in range(count))
