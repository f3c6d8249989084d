"""Runs are prepared in one way: by the page, by the command line, and at a queued run's turn. What is refused leaves
nothing behind.
"""

import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glmstudio import cli
from glmstudio.data.store import Store
from glmstudio.errors import StudioError
from glmstudio.models import chat_format
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.studio.run_queue import RunQueue
from glmstudio.training import batches, estimate, token_cache
from glmstudio.training import probe as probing
from glmstudio.training.prepare import Plan, RunWish, prepared_run
from glmstudio.training.runs import RunFolder
from glmstudio.workspace import Workspace
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, FAST, TRAIN, bytes_of
from tests.train.test_resume_commands import wait_for_training
from tests.ui.small_workspace import DATASET, DEV_ROWS, TRAIN_ROWS, prepare

LORA = LoraSettings(r=4)
SETTINGS = TrainingSettings(num_train_epochs=0.5, per_device_train_batch_size=8, max_source_length=60)
# What two runs that are the same do not share.
OWN = {"id", "number", "created_at", "started_at", "finished_at", "process"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("prepared")
    _, base = prepare(root)
    studio = Studio(Workspace(root), base=BaseWish(base, "cpu", "fp32"))
    studio.start()
    studio.resident(wait=True)
    yield studio
    studio.close()


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate that asks for less than a batch at a time."""
    planned = estimate.planned

    def short(*asked: Any) -> Any:
        findings, found = planned(*asked)
        return findings, dataclasses.replace(found, token_budget=90, gradient_checkpointing=True)

    monkeypatch.setattr(estimate, "planned", short)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter]:
    """How often each row was read from the database, and how often its texts became tokens."""
    counts: dict[str, Counter] = {"read": Counter(), "rendered": Counter()}
    iterate, one, many = Store.iterate, chat_format.render_example, chat_format.render_examples

    def read(store: Store, query: Any) -> Iterator[Any]:
        for row in iterate(store, query):
            counts["read"][row.id] += 1
            yield row

    def render(tokenizer: Any, family: Any, *texts: str, **limits: Any) -> Any:
        counts["rendered"][texts] += 1
        return one(tokenizer, family, *texts, **limits)

    def render_all(tokenizer: Any, family: Any, texts: list[tuple[str, str, str]], **limits: Any) -> Any:
        counts["rendered"].update(texts)
        return many(tokenizer, family, texts, **limits)

    monkeypatch.setattr(Store, "iterate", read)
    monkeypatch.setattr(chat_format, "render_example", render)
    monkeypatch.setattr(batches, "render_examples", render_all)
    return counts


def texts_of(studio: Studio) -> set[tuple[str, str, str]]:
    return {(row.instruction, row.input, row.target) for part in studio.training_rows(DATASET) for row in part}


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_page_and_command_line_write_the_same_run_and_look_at_each_row_once(studio, tmp_path, looked_at, tight) -> None:
    texts = texts_of(studio)
    config, place = tmp_path / "own.yaml", RunFolder(tmp_path / "run")
    for counter in looked_at.values():
        counter.clear()
    by_page = RunFolder(studio._workspace.run_folder(studio.start_run(DATASET, LORA, SETTINGS).id))
    wait_for_training()
    for ways in (looked_at["read"], {text: looked_at["rendered"][text] for text in texts}):
        assert set(ways.values()) == {1}
        assert len(ways) == TRAIN_ROWS + DEV_ROWS
        ways.clear()
    looked_at["rendered"].clear()
    config.write_text(studio.run_yaml(DATASET, LORA, SETTINGS), encoding="utf-8")
    assert cli.main(["train", "--config", str(config), "--output-dir", str(place.path)]) == 0
    assert set(looked_at["read"].values()) == {looked_at["rendered"][text] for text in texts} == {1}
    one, other = (json.loads((folder.path / "run.json").read_text(encoding="utf-8")) for folder in (by_page, place))
    assert {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} <= OWN
    assert (one["token_budget"], one["checkpointing"], one["status"]) == (90, True, "finished")
    for name in ("best", "last"):
        assert bytes_of(by_page.path / name) == bytes_of(place.path / name)
    for name in ("run.yaml", "row_ids.json"):
        assert (by_page.path / name).read_bytes() == (place.path / name).read_bytes()


def test_what_nobody_can_measure_is_trained_the_careful_way(tmp_path, monkeypatch) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise StudioError("probe-short")

    monkeypatch.setattr(probing, "probe", short)
    wish = RunWish("tiny", TRAIN, DEV, LORA, FAST, {"base": "tiny"})
    told = []
    with prepared_run(
        wish, Resident(tiny_base()), tmp_path / "snapshots", measure=lambda *_: short(), tell=told.append
    ) as ready:
        run = ready.write(RunFolder(tmp_path / "run"))
    assert (run.checkpointing, run.token_budget, run.undecided, run.total) == (True, 0, False, 12)
    assert [found.code for found in told if found.severity == "warning"] == ["probe-short"]
    for wish, checkpointing in (("on", True), ("off", False), ("auto", True)):
        settings = dataclasses.replace(FAST, gradient_checkpointing=wish, token_budget=70)
        assert Plan(LORA, settings, []).chosen == {
            "token_budget": 70,
            "checkpointing": checkpointing,
            "undecided": False,
        }


def test_what_was_open_when_a_run_was_queued_is_chosen_at_its_turn(studio, tight) -> None:
    """Nothing is measured beside a run that trains."""
    long = dataclasses.replace(SETTINGS, num_train_epochs=200)
    active = studio.start_run(DATASET, LORA, long)
    waiting = studio.start_run(DATASET, LoraSettings(r=3), SETTINGS, queue=True)
    known = studio.start_run(DATASET, LORA, SETTINGS, queue=True)
    assert (waiting.undecided, waiting.checkpointing, waiting.token_budget) == (True, True, 0)
    assert (known.undecided, known.checkpointing, known.token_budget) == (False, True, 90)
    studio.stop_run(active.id)
    wait_for_training()
    wait_for_training()
    wait_for_training()
    ended = studio.run(waiting.id)
    assert (ended.status, ended.undecided, ended.checkpointing, ended.token_budget) == ("finished", False, True, 90)
    assert studio.run(known.id).status == "finished"


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def moved(*_: Any) -> None:
    raise StudioError("adapter-changing", folder="x")


@pytest.mark.parametrize("at", ["check", "memory", "folder", "queue"])
def test_a_start_that_is_refused_leaves_nothing_behind(studio, tmp_path, monkeypatch, at) -> None:
    settings = dataclasses.replace(SETTINGS, learning_rate=9.0 if at == "check" else 1e-3)
    if at == "memory":
        monkeypatch.setattr(estimate, "free_memory", lambda device: -(2**30))
    if at == "folder":
        monkeypatch.setattr("glmstudio.training.prepare.write_yaml", full)
    if at == "queue":
        monkeypatch.setattr(RunQueue, "_write", full)
    studio._store.add_many(
        [dataclasses.replace(TRAIN[0], dataset="alone"), dataclasses.replace(DEV[0], dataset="alone")]
    )
    before = files(studio._workspace.root)
    with pytest.raises(StudioError, match="run-refused" if at in ("check", "memory") else "disk-full-start"):
        studio.start_run("alone", LORA, settings)
    assert files(studio._workspace.root) == before
    seen = studio.look(fresh=True)
    assert (seen.queue.active, seen.preparing) == ("", None)


def test_a_run_is_replaced_only_by_one_that_is_whole(tmp_path, monkeypatch) -> None:
    folder, resident = RunFolder(tmp_path / "run"), Resident(tiny_base())
    wish = RunWish("tiny", TRAIN, DEV, LORA, FAST, {"base": "tiny"})

    def write(overwrite: bool) -> Any:
        with prepared_run(wish, resident, tmp_path / "run" / "snapshots", measure=lambda *_: None) as ready:
            return ready.write(folder, overwrite=overwrite)

    write(overwrite=False)
    folder.update(status="finished")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(StudioError, match="run-exists"):
        write(overwrite=False)
    with monkeypatch.context() as patch:
        patch.setattr("glmstudio.training.prepare.write_yaml", moved)
        with pytest.raises(StudioError, match="adapter-changing"):
            write(overwrite=True)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert write(overwrite=True).status == "queued"


def test_a_start_says_how_many_rows_are_others_than_the_check_was_of(studio) -> None:
    studio._store.add_many(dataclasses.replace(row, dataset="moving") for row in [*TRAIN[:12], *DEV])
    checked = studio.plan_run("moving", LORA, SETTINGS).checked
    assert studio.plan_run("moving", LORA, dataclasses.replace(SETTINGS, num_train_epochs=1)).checked == checked
    told: list[tuple[str, int]] = []

    def started() -> RunFolder:
        run = studio.start_run(
            "moving", LORA, SETTINGS, checked=checked, tell=lambda found: told.append((found.code, found.count))
        )
        wait_for_training()
        return RunFolder(studio._workspace.run_folder(run.id))

    started()
    assert told == []
    first, second, third, fourth, *_ = studio.training_rows("moving")[0]
    studio.save_example(dataclasses.replace(first, target="another"))
    studio.save_example(dataclasses.replace(second, status="draft"))
    studio.save_example(dataclasses.replace(third, split="dev"))
    studio.delete_examples([fourth.id])
    studio.save_example(dataclasses.replace(TRAIN[20], dataset="moving"))
    # The rows of another dataset are no matter.
    studio.save_example(dataclasses.replace(TRAIN[20], dataset="other"))
    rows = started().rows(studio._workspace.snapshots)
    assert told == [("rows-moved", 5)]
    assert (rows.train[0].target, len(rows.train), len(rows.dev)) == ("another", 10, 7)
    # Back to what the check was of.
    for row in (first, second, third):
        studio.undo_save(row.id)
    studio.restore_examples([fourth.id])
    studio.delete_examples([studio.training_rows("moving")[0][-1].id])
    started()
    assert len(told) == 1


def test_a_slow_start_says_what_it_does_and_nobody_waits_for_it(studio, monkeypatch) -> None:
    begun, go = threading.Event(), threading.Event()
    render = token_cache.render_rows

    def slow(*rows: Any) -> Any:
        begun.set()
        assert go.wait(600)
        return render(*rows)

    monkeypatch.setattr(token_cache, "render_rows", slow)
    started: list[str] = []
    settings = dataclasses.replace(SETTINGS, max_source_length=61)
    click = threading.Thread(target=lambda: started.append(studio.start_run(DATASET, LORA, settings).id))
    click.start()
    assert begun.wait(600)
    # Each of these would hang where the start held a lock that they want.
    looks: tuple[Callable[[], Any], ...] = (
        studio.runs,
        lambda: studio.look(fresh=True),
        studio.active_run,
        studio.base_status,
    )
    for look in looks:
        look()
    seen = studio.look(fresh=True)
    assert seen.busy
    assert (seen.preparing.dataset, seen.preparing.stage) == (DATASET, "rendering")
    for other, code in (
        (lambda: studio.start_run(DATASET, LORA, SETTINGS), "run-starting"),
        (lambda: studio.use_base("embedded", "none"), "run-starting"),
    ):
        with pytest.raises(StudioError) as told:
            other()
        assert told.value.code == code
    go.set()
    click.join(600)
    wait_for_training()
    assert studio.run(started[0]).status == "finished"
    assert studio.look(fresh=True).preparing is None
