"""Tokens that are counted once and kept: the rows as they are rendered, whatever is changed in rows and settings."""

import dataclasses
import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from glmstudio.data.example import Example
from glmstudio.data.kept_rows import KeptRows, RowSet
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store
from glmstudio.models.chat_format import render_examples
from glmstudio.models.prompts.encoding import encoded
from glmstudio.models.prompts.prompt_style import PromptStyle
from glmstudio.settings import PROMPT_STYLES, LoraSettings, TrainingSettings
from glmstudio.training import token_counts
from glmstudio.training.check import check
from glmstudio.training.token_counts import RowSizes, TokenCounts
from tests.prompt_bases import BASES, prompt_bases
from tests.tiny_base import tiny_base
from tests.train.runs import FAST, checked

TEXTS = ("", "Name it.", "red " * 9, "blue " * 30, "你好，", "[1", "a b\n\n", "Oslo is grey <sop> 😀" * 4)


def some_rows(chance: random.Random, count: int) -> list[Example]:
    return [Example("i", *(chance.choice(TEXTS) for _ in range(2))) for _ in range(count)]


def sizes_of(name: str, rows: Sequence[Example], settings: TrainingSettings) -> RowSizes:
    return TokenCounts().sizes(*prompt_bases()[name], RowSet.of(rows, []), settings)


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("name", BASES)
def test_rows_are_as_long_as_they_are_rendered(name: str, style: str) -> None:
    chance, tokenizer_and_family = random.Random(f"{name} {style}"), prompt_bases()[name]
    rows = some_rows(chance, 12)
    for source, target in ((40, 8), (60, 30), (400, 300)):
        settings = TrainingSettings(max_source_length=source, max_target_length=target, prompt_style=style)
        sizes = sizes_of(name, rows, settings)
        rendered = render_examples(
            *tokenizer_and_family, [(row.instruction, row.input, row.target) for row in rows],
            max_source_length=source, max_target_length=target, style=style,
        )  # fmt: skip
        lengths = [len(row.ids) for row in rendered]
        assert sizes.exact(range(len(rows))) == lengths
        assert sizes.longest() == max(lengths)
        assert sizes.prompt.tolist() == [row.prompt_length + row.cut_prompt for row in rendered]
        assert sizes.prompt_cut.tolist() == [row.cut_prompt > 0 for row in rendered]
        assert sizes.target_cut.tolist() == [row.cut_target > 0 for row in rendered]
        at_most = [length + row.cut_prompt for length, row in zip(lengths, rendered, strict=True)]
        targets = [len(row.ids) - row.prompt_length for row in rendered]
        pairs = sizes.of_train.tolist()
        assert [pair[1] for pair in pairs] == targets
        # A prompt that is cut has as many tokens as fit, or some fewer.
        for pair, length, most, cut in zip(pairs, lengths, at_most, sizes.prompt_cut, strict=True):
            assert length <= pair[0] <= (min(most, length + 8) if cut else length)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a tokenizer was given."""
    given: list[str] = []

    def counting(tokenizer: Any, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        given.extend(texts)
        return encoded(tokenizer, texts, special=special)

    for module in ("training.token_counts", "models.prompts.prompt_style", "models.prompts.dialogue"):
        monkeypatch.setattr(f"glmstudio.{module}.encoded", counting)
    return given


def test_a_row_is_counted_once_and_only_what_a_change_makes_new(counted: list[str]) -> None:
    counts, (tokenizer, family) = TokenCounts(), prompt_bases()["chatglm"]
    rows = [Example("i", f"row {number}", f"answer {number}") for number in range(5)]

    def sizes(rows: RowSet, **changes: Any) -> RowSizes:
        return counts.sizes(tokenizer, family, rows, replace(TrainingSettings(), **changes))

    first = RowSet.of(rows, [])
    sizes(first)
    assert len(counted) == 10
    sizes(first, max_source_length=300, learning_rate=1e-3)
    sizes(RowSet.of(rows[::-1], rows[:2]))
    assert len(counted) == 10
    # The targets of a dialogue are the same.
    sizes(first, prompt_style="chat")
    assert counted[10:] == [f"i\nrow {number}" for number in range(5)]
    sizes(RowSet.of([*rows, Example("i", "row 5", "answer 5"), replace(rows[0], target="other")], []))
    assert sorted(counted[15:]) == [
        "Instruction: i\nInput: row 0\nAnswer: ", "Instruction: i\nInput: row 5\nAnswer: ", "answer 5", "other",
    ]  # fmt: skip


def test_of_many_rows_that_are_cut_few_are_cut_to_tell_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting, cut = PromptStyle.fitting, []

    def counting(self: PromptStyle, *values: Any) -> list[int]:
        cut.append(values)
        return fitting(self, *values)

    monkeypatch.setattr(PromptStyle, "fitting", counting)
    rows = [Example("i", "red " * 99, "blue " * (number % 20), id=number + 1) for number in range(300)]
    settings = TrainingSettings(max_source_length=60)
    sizes = sizes_of("chatglm", rows, settings)
    assert sizes.prompt_cut.all()
    longest = sizes.longest()
    assert len(cut) < 20
    assert longest == max(sizes.exact(range(300)))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, counted: list[str]) -> None:
    monkeypatch.setattr(token_counts, "ROWS_KEPT", 6)
    counts, (tokenizer, family) = TokenCounts(), prompt_bases()["chatglm"]
    former, latter = ([Example("i", f"{name} {number}", name) for number in range(5)] for name in "ab")
    for rows in (former, latter, latter[:2]):
        counts.count(tokenizer, family, RowSet.of(rows, []), "instruction")
    del counted[:]
    counts.count(tokenizer, family, RowSet.of(latter, []), "instruction")
    assert counted == []
    counts.count(tokenizer, family, RowSet.of(former, []), "instruction")
    assert len(counted) >= 5


def test_rows_that_are_rendered_already_tell_the_same() -> None:
    tokenizer, family = prompt_bases()["chatglm3"]
    rows = some_rows(random.Random(1), 20)
    settings = TrainingSettings(max_source_length=40, max_target_length=8, prompt_style="chat")
    texts = [(row.instruction, row.input, row.target) for row in rows]
    rendered = render_examples(
        tokenizer, family, texts, max_source_length=40, max_target_length=8, style="chat",
    )  # fmt: skip
    of_texts, of_ids = sizes_of("chatglm3", rows, settings), RowSizes.of(rendered[:15], rendered[15:])
    for name in ("prompt", "target", "kept", "prompt_cut", "target_cut"):
        assert getattr(of_texts, name).tolist() == getattr(of_ids, name).tolist(), name
    assert (of_texts.longest(), of_texts.exact(range(20))) == (of_ids.longest(), of_ids.exact(range(20)))
    assert of_ids.of_train[:, 0].tolist() == [len(row.ids) for row in rendered[:15]]
    assert len(of_ids.of_dev) == 5


def test_the_check_finds_the_same_as_one_that_has_kept_nothing(stores: tuple[Store, Store]) -> None:
    chance, here, base = random.Random(3), stores[0], tiny_base()
    known, counts = KeptRows(here), TokenCounts()
    here.add_many(replace(row, dataset="d") for row in some_rows(chance, 30))
    for step in range(40):
        store = stores[step % 2]
        ids = [row.id for row in store.iterate(Query())]
        (row,) = some_rows(chance, 1)
        split, status = chance.choice(["train", "dev"]), chance.choice(["done", "done", "draft"])
        row = replace(row, dataset=chance.choice("dde"), split=split, status=status)
        deeds = {
            "add": lambda store=store, row=row: store.save(row),
            "change": lambda store=store, row=row, ids=ids: store.save(replace(row, id=chance.choice(ids))),
            "delete": lambda store=store, ids=ids: store.delete(chance.sample(ids, 2)),
            "restore": lambda store=store: store.restore(range(1, 40)),
        }
        deeds[chance.choice(list(deeds))]()
        settings = dataclasses.replace(
            FAST,
            max_source_length=chance.choice([40, 60, 400]),
            max_target_length=chance.choice([8, 30]),
            prompt_style=chance.choice(PROMPT_STYLES),
            per_device_train_batch_size=chance.choice([1, 8]),
        )
        train, dev = (
            list(stores[1].iterate(Query(dataset="d", split=split, status="done"))) for split in ("train", "dev")
        )
        rows = known.look("d")
        sizes = functools.partial(counts.sizes, base.tokenizer, base.family, rows, settings)
        found = check(base, rows, LoraSettings(), settings, sizes)
        assert found == checked(base, train, dev, LoraSettings(), settings)
