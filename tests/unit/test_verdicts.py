"""Verdicts: kept with the row in one transaction, read as pairs of a right and a wrong answer."""

from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data.example import Example
from glmstudio.data.store import Store
from glmstudio.data.verdicts import Answerer, Judgement
from glmstudio.errors import StudioError

BY = Answerer("embedded", "f00d", "run-0001@best", "abc", "instruction", {"temperature": 0.0, "max_new_tokens": 64})


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(f"sqlite:///{tmp_path / 'rows.sqlite'}")
    yield opened
    opened.close()


def test_a_wrong_answer_stays_beside_the_row_that_corrects_it(store: Store) -> None:
    row = store.save(Example("i", "x", "right"), judgement=Judgement("wrong", False, BY, "li"))
    store.save(replace(row, target="righter"))
    (verdict,) = store.verdicts.of(row.id)
    assert (verdict.judgement, verdict.example_id, verdict.revision) == (Judgement("wrong", False, BY, "li"), row.id, 1)
    assert verdict.created_at == row.updated_at


def test_no_verdict_without_its_row_and_no_row_without_its_verdict(store: Store) -> None:
    row = store.save(Example("i", "x", "mine"))
    with pytest.raises(StudioError, match="stale-revision"):
        store.save(replace(row, target="late"), expected_revision=0, judgement=Judgement("a", True, BY))
    with pytest.raises(TypeError):
        store.save(replace(row, target="half"), judgement=Judgement("a", True, replace(BY, settings={"x": object()})))
    assert store.get(row.id) == row
    assert store.verdicts.of(row.id) == []


def test_a_verdict_on_a_row_that_stays_the_same_is_kept(store: Store) -> None:
    row = store.save(Example("i", "x", "t"), judgement=Judgement("t", True, BY))
    assert store.save(row, judgement=Judgement("other", False, BY)).revision == 1
    assert [verdict.judgement.answer for verdict in store.verdicts.of(row.id)] == ["t", "other"]


def test_a_second_thought_counts_and_pairs_can_be_read(store: Store) -> None:
    row = store.save(Example("i", "x", "yes"), judgement=Judgement("yes", True, BY))
    store.save(replace(row, target="no"), judgement=Judgement("yes", False, BY))
    other = store.save(Example("i", "y", "ok"), judgement=Judgement("ok", True, Answerer("embedded")))
    newest = list(store.verdicts.newest())
    assert [(v.example_id, v.judgement.correct) for v in newest] == [(row.id, False), (other.id, True)]
    pairs = [(store.get(v.example_id).target, v.judgement.answer) for v in newest if not v.judgement.correct]
    assert pairs == [("no", "yes")]
