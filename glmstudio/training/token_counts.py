"""How many tokens the rows of a run have, each counted once for a tokenizer and a style and kept by what is in the row.

Knows a tokenizer, a family and rows without their texts; knows no model and no run.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from glmstudio.data.kept_rows import RowSet
from glmstudio.models.chat_format import Rendered
from glmstudio.models.families.family import Family
from glmstudio.models.prompts.encoding import encoded
from glmstudio.models.prompts.prompt_style import PromptStyle
from glmstudio.settings import TrainingSettings

# What a tokenizer is given at a time, and how many rows are kept of each style.
ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 512, 1_000_000
ROWS_KEPT = 1_000_000


@dataclass(frozen=True, eq=False)
class RowSizes:
    """Tokens of rows as a run with certain settings takes them: arrays of one int32 a row, the first `train` of them of
    training rows. `prompt` and `target` are whole, the style's head counted; `kept` stays of a target, and `row` is the
    most that a row has. Of a prompt that is cut as many characters stay as fit, which may leave it some tokens short of
    its limit: `fitted` counts such prompts as they are then, by the numbers of their rows."""

    train: int
    prompt: np.ndarray
    target: np.ndarray
    kept: np.ndarray
    row: np.ndarray
    prompt_cut: np.ndarray
    fitted: Callable[[Sequence[int]], list[int]]

    @classmethod
    def of(cls, train: Sequence[Rendered], dev: Sequence[Rendered]) -> "RowSizes":
        """Of rows that are rendered already: then `row` is exact."""
        # A row at a time: nobody holds all of them.
        numbers = (
            number
            for item in chain(train, dev)
            for number in (len(item.ids), item.prompt_length, item.cut_prompt, item.cut_target)
        )
        count = len(train) + len(dev)
        row, prompt, cut_prompt, cut_target = np.fromiter(numbers, np.int32, 4 * count).reshape(count, 4).T
        kept = row - prompt - 1
        return cls(
            len(train), prompt + cut_prompt, kept + cut_target, kept, row, cut_prompt > 0,
            lambda numbers: prompt[numbers].tolist(),
        )  # fmt: skip

    @property
    def target_cut(self) -> np.ndarray:
        return self.target > self.kept

    @property
    def of_train(self) -> np.ndarray:
        """(tokens at most, target tokens that are trained on) of each training row, int32 (rows, 2)."""
        return self._pairs[: self.train]

    @property
    def of_dev(self) -> np.ndarray:
        """The same of the dev rows."""
        return self._pairs[self.train :]

    @property
    def _pairs(self) -> np.ndarray:
        return np.stack([self.row, self.kept + 1], axis=1)

    def exact(self, numbers: Sequence[int]) -> list[int]:
        """The tokens of these rows."""
        cut = [number for number in numbers if self.prompt_cut[number]]
        fitted = dict(zip(cut, self.fitted(cut), strict=True))
        rest = {number: int(self.kept[number]) + 1 for number in cut}
        return [fitted[number] + rest[number] if number in rest else int(self.row[number]) for number in numbers]

    def longest(self) -> int:
        """The tokens of the longest row."""
        longest = int(self.row[~self.prompt_cut].max(initial=0))
        for number in np.argsort(-self.row, kind="stable").tolist():
            # None of the rest may be longer.
            if self.row[number] <= longest:
                break
            longest = max(longest, *self.exact([number]))
        return longest


@dataclass
class _Kept:
    """Of one tokenizer: by content, the tokens of prompts by (family, style), of targets, and of prompts that are cut;
    and what the rows were that somebody asked for last."""

    prompts: dict[tuple[str, str], dict[bytes, int]] = field(default_factory=dict)
    targets: dict[bytes, int] = field(default_factory=dict)
    fitted: dict[tuple[str, str, int, bytes], int] = field(default_factory=dict)
    latest: dict[tuple[str, str], tuple[RowSet, np.ndarray, np.ndarray]] = field(default_factory=dict)


class TokenCounts:
    """Counts tokens and keeps them, of about `ROWS_KEPT` rows for each tokenizer and style. Safe to call from several
    threads, none of which waits for another; no base is held, only its tokenizer."""

    def __init__(self) -> None:
        self._tokenizers: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()

    def sizes(self, tokenizer: Any, family: Family, rows: RowSet, settings: TrainingSettings) -> RowSizes:
        """The rows as training with these settings takes them.

        Raises RowsMovedOnError, and StudioError as rendering them would.
        """
        style = PromptStyle(tokenizer, family, settings.prompt_style)
        prompt, target = self.count(tokenizer, family, rows, settings.prompt_style)
        target = target + len(style.head)
        kept, limit = np.minimum(target, settings.max_target_length - 2), style.limit(settings.max_source_length)
        at_most, cut = np.minimum(prompt, limit) + kept + 1, prompt > limit
        fitted = partial(self._fitted, tokenizer, family, rows, settings)
        sizes = RowSizes(rows.train, prompt, target, kept, at_most, cut, fitted)
        # Where not even an empty row fits, none does.
        sizes.exact(np.flatnonzero(cut)[:1].tolist())
        return sizes

    def known(self, tokenizer: Any, family: Family, rows: RowSet, style: str) -> bool:
        """Whether `count` and `sizes` would count nothing."""
        kept = self._tokenizers.get(tokenizer)
        latest = kept.latest.get((family.name, style)) if kept is not None else None
        return latest is not None and latest[0] is rows

    def count(
        self,
        tokenizer: Any,
        family: Family,
        rows: RowSet,
        style: str,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(tokens of the whole prompts, of the whole targets without a head), int32, one number a row; what `sizes`
        counts, too, but for who wants to hear how far it is. Raises as `sizes`."""
        asking = PromptStyle(tokenizer, family, style)
        kept, kind = self._tokenizers.setdefault(tokenizer, _Kept()), (family.name, style)
        latest = kept.latest.get(kind)
        if latest is None or latest[0] is not rows:
            prompts, targets = kept.prompts.setdefault(kind, {}), kept.targets
            _count(tokenizer, asking, rows, prompts, targets, on_progress)
            arrays = [
                np.fromiter((counts[fact.content] for fact in rows.facts), np.int32, len(rows))
                for counts in (prompts, targets)
            ]
            kept.prompts[kind], kept.targets = _bounded(prompts, rows), _bounded(targets, rows)
            latest = kept.latest[kind] = rows, *arrays
        return latest[1], latest[2]

    def _fitted(
        self, tokenizer: Any, family: Family, rows: RowSet, settings: TrainingSettings, numbers: Sequence[int]
    ) -> list[int]:
        """The tokens of prompts that are cut to their limit."""
        kept, longest = self._tokenizers.setdefault(tokenizer, _Kept()), settings.max_source_length
        asking = PromptStyle(tokenizer, family, settings.prompt_style)
        kind = family.name, settings.prompt_style, longest
        known = {number: kept.fitted.get((*kind, rows.facts[number].content)) for number in numbers}
        for portion in _portions(rows, [number for number in numbers if known[number] is None]):
            for number, text in zip(portion, rows.texts(portion), strict=True):
                known[number] = len(asking.fitting(*text[:2], longest))
                kept.fitted[*kind, rows.facts[number].content] = known[number]
        if len(kept.fitted) > ROWS_KEPT:
            kept.fitted = {}
        return [known[number] for number in numbers]


def _count(
    tokenizer: Any,
    asking: PromptStyle,
    rows: RowSet,
    prompts: dict[bytes, int],
    targets: dict[bytes, int],
    on_progress: Callable[[int, int], None],
) -> None:
    """Adds to the tokens of prompts and of targets, by content, those that are not known."""
    contents = [fact.content for fact in rows.facts]
    new = {
        content: number for number, content in enumerate(contents) if not (content in prompts and content in targets)
    }
    done = 0
    for numbers in _portions(rows, list(new.values())):
        texts = dict(zip(numbers, rows.texts(numbers), strict=True))
        asked, answered = (
            [number for number in numbers if contents[number] not in counts] for counts in (prompts, targets)
        )
        whole = asking.whole([texts[number][:2] for number in asked])
        answers = encoded(tokenizer, [texts[number][2] for number in answered])
        prompts.update((contents[number], len(ids)) for number, ids in zip(asked, whole, strict=True))
        targets.update((contents[number], len(ids)) for number, ids in zip(answered, answers, strict=True))
        done += len(numbers)
        on_progress(done, len(new))


def _bounded(counts: dict[bytes, int], rows: RowSet) -> dict[bytes, int]:
    """All counts, or where that are too many those of these rows."""
    if len(counts) <= max(ROWS_KEPT, len(rows)):
        return counts
    return {fact.content: counts[fact.content] for fact in rows.facts}


def _portions(rows: RowSet, numbers: Sequence[int]) -> Iterator[list[int]]:
    """The numbers in lists that are quick to count."""
    portion: list[int] = []
    characters = 0
    for number in numbers:
        portion.append(number)
        characters += rows.facts[number].characters
        if len(portion) == ROWS_AT_ONCE or characters > CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion
