"""Rows known without their texts: the same findings as from the texts, read again only where they have changed."""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from glmstudio.data.example import Example
from glmstudio.data.kept_rows import KeptRows, RowSet, RowsMovedOnError
from glmstudio.data.quality import json_state
from glmstudio.data.row_facts import dataset_findings
from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store

TEXTS = ("", " ", "a", "a ", "b", "[1]", "[1", "红", " 红", "a\nb")


def plain(rows: Sequence[Example]) -> dict[str, tuple[int, ...]]:
    """What the findings say, from texts compared with texts."""
    found: dict[str, list[int]] = defaultdict(list)
    groups: dict[tuple[str, str, str], list[tuple[str, int]]] = defaultdict(list)
    for place, row in enumerate(rows, start=1):
        told = row.id or place
        found["empty-prompt"] += [told] * (not (row.instruction + row.input).strip())
        found["empty-target"] += [told] * (not row.target.strip())
        found["broken-json"] += [told] * (json_state(row.target) == "broken")
        found["raw-context"] += [told] * ("raw-context" in row.tags and not row.instruction)
        group = groups[row.split, row.instruction.strip(), row.input.strip()]
        found["duplicate-rows"] += [told] * any(target == row.target.strip() for target, _ in group)
        group.append((row.target.strip(), told))
    for (split, *prompt), group in groups.items():
        if split == "dev" and ("train", *prompt) in groups:
            found["dev-leak"] += [place for _, place in group]
        firsts = dict(reversed(group))
        if len(firsts) > 1:
            found["conflicting-targets"] += [place for target, place in group if firsts[target] == place]
    return {code: tuple(places) for code, places in found.items() if places}


def told(rows: RowSet | Sequence[Example]) -> dict[str, tuple[int, ...]]:
    findings = rows.findings if isinstance(rows, RowSet) else dataset_findings(rows)
    assert all(finding.count == len(finding.rows) for finding in findings)
    return {finding.code: finding.rows for finding in findings}


def some_row(chance: random.Random, **given: object) -> Example:
    tags = ("raw-context",) if chance.random() < 0.2 else ()
    texts = (chance.choice(TEXTS) for _ in range(3))
    place = {"split": chance.choice(["train", "train", "dev"]), "status": chance.choice(["done", "done", "draft"])}
    return Example(*texts, tags=tags, **{"dataset": chance.choice("ab"), **place, **given})


def test_findings_are_those_of_the_texts_whatever_is_done_to_the_rows(stores: tuple[Store, Store]) -> None:
    chance, known = random.Random(7), KeptRows(stores[0])
    stores[0].add_many(some_row(chance) for _ in range(30))

    def edit(store: Store) -> None:
        ids = [row.id for row in store.iterate(Query())]
        one = replace(some_row(chance), id=chance.choice(ids))
        deeds = {
            "add": lambda: store.save(some_row(chance)),
            "change": lambda: store.save(one),
            "take back": lambda: store.save(replace(one, target="x")) and store.undo_save(one.id),
            "delete": lambda: store.delete(chance.sample(ids, 3)),
            "restore": lambda: store.restore(range(1, 40)),
            "import": lambda: store.import_rows([some_row(chance, dataset="b")] * 3, dataset="b", file="f"),
            "undo": lambda: [store.imports.undo(done.id) for done in store.imports.all() if done.state == "done"],
        }
        deeds[chance.choice(list(deeds))]()

    for step in range(60):
        edit(stores[step % 2])
        for dataset in "ab":
            train, dev = (
                list(stores[1].iterate(Query(dataset=dataset, split=split, status="done")))
                for split in ("train", "dev")
            )
            rows = known.look(dataset)
            assert [fact.place for fact in rows.facts] == [row.id for row in [*train, *dev]]
            assert (rows.train, rows.dev) == (len(train), len(dev))
            assert told(rows) == told([*train, *dev]) == plain([*train, *dev])
            assert known.latest(dataset) is known.look(dataset) is rows
            texts = [(row.instruction, row.input, row.target) for row in [*train, *dev]]
            assert rows.texts(range(len(rows))) == texts == RowSet.of(train, dev).texts(range(len(rows)))


def test_only_what_has_changed_is_read_again(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = stores
    here.add_many(Example("i", str(number), "t", dataset="d") for number in range(5))
    read, rows_of = [], here.rows
    monkeypatch.setattr(here, "rows", lambda ids: read.extend(ids) or rows_of(ids))
    known = KeptRows(here)
    first = known.look("d")
    elsewhere.save(Example("i", "of another dataset", dataset="e"))
    assert known.look("d") is first
    elsewhere.save(replace(elsewhere.get(3), target="u"))
    elsewhere.delete([4])
    with pytest.raises(RowsMovedOnError):
        first.texts([2])
    with pytest.raises(RowsMovedOnError):
        first.texts([3])
    del read[5:]
    assert known.latest("d") is None
    assert [fact.place for fact in known.look("d").facts] == [1, 2, 3, 5]
    assert read == [1, 2, 3, 4, 5, 3]


def test_two_looks_at_the_same_time_read_once(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = stores
    here.add_many(Example("i", str(number), "t", dataset="d") for number in range(5))
    reading, go_on, reads, rows_of = threading.Event(), threading.Event(), [], here.rows

    def slow(ids: Sequence[int]) -> Iterator[Example]:
        reads.append(list(ids))
        reading.set()
        go_on.wait()
        yield from rows_of(ids)

    monkeypatch.setattr(here, "rows", slow)
    known, found = KeptRows(here), []
    threads = [threading.Thread(target=lambda: found.append(known.look("d"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    reading.wait()
    # Who only asks what is known does not wait.
    assert known.latest("d") is None
    go_on.set()
    for thread in threads:
        thread.join()
    assert reads == [[1, 2, 3, 4, 5]]
    assert found[0] is found[1]
