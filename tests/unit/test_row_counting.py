"""Rows counted in the background: two who ask wait for one count, nobody waits longer than he wants."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmstudio.data.example import Example
from glmstudio.data.kept_rows import KeptRows, RowSet
from glmstudio.data.store import Store
from glmstudio.errors import StudioError
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.studio.row_counting import CountUnderWay, RowCounting
from glmstudio.training.token_counts import TokenCounts
from tests.scripted import ByteTokenizer


class SlowTokenizer(ByteTokenizer):
    """Reads a text when it is let."""

    def __init__(self) -> None:
        self.reads, self.go_on = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        self.texts.append(text)
        self.reads.set()
        self.go_on.wait()
        return super().encode(text, add_special_tokens)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'rows.sqlite'}")
    opened.add_many(Example("i", f"row {number}", "t", dataset="d") for number in range(3))
    yield opened
    opened.close()


@pytest.fixture
def counting(store: Store) -> Iterator[RowCounting]:
    made = RowCounting(KeptRows(store), TokenCounts())
    yield made
    made.close()


def ask(counting: RowCounting, tokenizer: Any, seconds: float | None = None) -> RowSet | CountUnderWay:
    return counting.rows("d", tokenizer, CHATGLM, "instruction", seconds)


def test_without_a_tokenizer_rows_are_only_read(counting: RowCounting) -> None:
    assert [fact.place for fact in counting.rows("d", None, None, "instruction", None).facts] == [1, 2, 3]


def test_who_does_not_want_to_wait_is_told_and_asks_again(counting: RowCounting, store: Store) -> None:
    tokenizer = SlowTokenizer()
    assert ask(counting, tokenizer, 0) == CountUnderWay()
    tokenizer.reads.wait()
    assert isinstance(ask(counting, tokenizer, 0), CountUnderWay)
    version, found = counting.version, []
    waiting = [threading.Thread(target=lambda: found.append(ask(counting, tokenizer))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    tokenizer.go_on.set()
    for thread in waiting:
        thread.join()
    assert counting.version > version
    assert found[0] is found[1] is ask(counting, tokenizer, 0)
    # Three prompts and the one target that all have.
    assert sorted(tokenizer.texts)[:3] == [f"Instruction: i\nInput: row {number}\nAnswer: " for number in range(3)]
    assert len(tokenizer.texts) == len(set(tokenizer.texts)) + 2


def test_what_is_written_during_a_count_is_part_of_what_is_answered_later(counting: RowCounting, store: Store) -> None:
    tokenizer = SlowTokenizer()
    ask(counting, tokenizer, 0)
    tokenizer.reads.wait()
    store.save(replace(store.get(2), input="changed"))
    store.delete([3])
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ask(counting, tokenizer)))
    thread.start()
    tokenizer.go_on.set()
    thread.join()
    assert [fact.place for fact in found[0].facts] == [1, 2]
    assert found[0].texts([1]) == [("i", "changed", "t")]


def test_rows_that_cannot_be_counted_are_tried_once(counting: RowCounting, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a base without a chat template: the check says so, with the rows at hand."""
    tried: list[Any] = []

    def refused(*values: Any) -> None:
        tried.append(values)
        raise StudioError("no-chat-template")

    monkeypatch.setattr(counting.counts, "count", refused)
    tokenizer = ByteTokenizer()
    assert ask(counting, tokenizer) is ask(counting, tokenizer) is ask(counting, tokenizer, 0)
    assert (len(tried), counting.version) == (1, 0)


def test_a_count_that_fails_is_told_and_tried_again(counting: RowCounting, store: Store, monkeypatch: Any) -> None:
    def broken(dataset: str) -> Any:
        raise OSError("gone")

    with monkeypatch.context() as broken_store:
        broken_store.setattr(store, "revisions", broken)
        with pytest.raises(OSError, match="gone"):
            ask(counting, ByteTokenizer())
    assert len(ask(counting, ByteTokenizer())) == 3
