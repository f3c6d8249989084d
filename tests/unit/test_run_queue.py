"""The queue of runs: order, places, a restart, runs that fail, taking out, and two people at once. Trains nothing."""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio.run_queue import RunQueue, Waiting
from glmstudio.training import launch
from glmstudio.training import train as training
from glmstudio.training.runs import RunFolder, new_run_id
from glmstudio.workspace import Workspace


def base(source: str) -> SimpleNamespace:
    family = SimpleNamespace(name="chatglm")
    return SimpleNamespace(
        source=source, family=family, dtype="torch.float32", device="cpu", quantization="none", fingerprint=""
    )


class Desk:
    """A queue whose runs train until they are let go; `trained` are their ids and whether they went on."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root).ensure()
        self.queue = RunQueue(self.workspace, lambda run_id: nullcontext(SimpleNamespace(base=base("tiny"))))
        self.queue.mine()
        self.trained: list[tuple[str, bool]] = []
        self.began, self.end = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None

    def train(
        self, resident, folder, train, dev, lora, settings, *, should_stop, pause, on_progress, resume, tokens
    ) -> None:
        folder.update(status="running")
        self.trained.append((folder.path.name, resume))
        self.began.release()
        assert self.end.acquire(timeout=600)
        pause.wait()
        if self.error is not None:
            folder.update(status="failed")
            raise self.error
        folder.update(status="stopped" if should_stop() else "finished")

    def add(self, *, now: bool = False, source: str = "tiny", go_on: bool = False, processes: int = 1) -> str:
        with self.queue.preparing(now=now):
            run_id = self.write(source, processes)
            self.queue.add(run_id, now=now, go_on=go_on)
        return run_id

    def write(self, source: str = "tiny", processes: int = 1) -> str:
        run_id = new_run_id(self.workspace.checkpoints)
        frozen = snapshot.freeze([Example("i", "x", "y")], [], self.workspace.snapshots)
        self.folder(run_id).create(
            snapshot_id=frozen.id, dataset="d", base=base(source), lora=LoraSettings(),
            settings=TrainingSettings(num_processes=processes),
        )  # fmt: skip
        return run_id

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.workspace.run_folder(run_id))

    def status(self, run_id: str) -> str:
        return self.folder(run_id).read().status

    def wait_until_one_trains(self) -> str:
        assert self.began.acquire(timeout=600)
        return self.trained[-1][0]

    def finish(self, count: int) -> None:
        """Lets so many runs end and waits for the last one's end."""
        for _ in range(count):
            thread = self.queue._thread._thread
            self.end.release()
            thread.join(600)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path)
    monkeypatch.setattr(training, "train", lambda *values, **more: made.train(*values, **more))
    return made


def died(desk: Desk, *run_ids: str) -> None:
    """As a process leaves its runs and the queue that is gone."""
    desk.queue._owner.release()
    for run_id in run_ids:
        desk.folder(run_id).update(process={})


def test_runs_train_one_after_another_in_the_order_that_was_chosen(desk):
    first, second, third, fourth = (desk.add() for _ in range(4))
    assert desk.wait_until_one_trains() == first
    assert desk.queue.waiting() == [second, third, fourth]
    assert [desk.status(run_id) for run_id in (first, second)] == ["running", "queued"]
    desk.queue.move(fourth, -1)
    desk.queue.move(second, -1)
    desk.queue.move(second, 1)
    assert desk.queue.waiting() == [fourth, second, third]
    desk.finish(4)
    assert [run_id for run_id, _ in desk.trained] == [first, fourth, second, third]
    assert [desk.status(run_id) for run_id in (first, second, third, fourth)] == ["finished"] * 4
    assert desk.queue.active_id == ""


def test_the_queue_goes_on_behind_a_run_that_was_stopped_or_failed_and_past_another_base(desk):
    first, other, second, third = desk.add(), desk.add(source="elsewhere"), desk.add(), desk.add()
    desk.wait_until_one_trains()
    with pytest.raises(StudioError, match="run-not-active"):
        desk.queue.stop(second)
    desk.queue.stop(first)
    desk.finish(1)
    assert desk.status(first) == "stopped"
    assert desk.wait_until_one_trains() == second
    assert desk.status(other) == "failed"
    error = desk.folder(other).read().error
    assert (error["code"], error["params"]["wanted"]) == ("resume-base", "elsewhere")
    desk.error = StudioError("out-of-memory", run=second)
    desk.finish(1)
    assert desk.wait_until_one_trains() == third
    desk.finish(1)
    assert desk.queue.waiting() == []


def test_a_run_whose_rows_are_gone_fails_with_that_reason(desk):
    first, second = desk.add(), desk.add()
    desk.wait_until_one_trains()
    for path in desk.workspace.snapshots.glob("*/train.jsonl"):
        path.unlink()
    desk.finish(1)
    desk.queue._thread.close(600)
    assert desk.status(first) == "finished"
    assert desk.folder(second).read().error["code"] == "snapshot-missing"


def test_what_is_taken_out_goes_away_unless_it_has_trained(desk):
    first, fresh, trained = desk.add(), desk.add(), desk.add(go_on=True)
    desk.wait_until_one_trains()
    for run_id in (fresh, trained):
        desk.queue.remove(run_id)
        with pytest.raises(StudioError, match="run-not-queued"):
            desk.queue.remove(run_id)
        with pytest.raises(StudioError, match="run-not-queued"):
            desk.queue.move(run_id, 1)
    assert not desk.folder(fresh).path.exists()
    assert desk.status(trained) == "stopped"
    with pytest.raises(StudioError, match="run-not-queued"):
        desk.queue.remove(first)
    desk.finish(1)
    assert [run_id for run_id, _ in desk.trained] == [first]


def test_a_restart_keeps_order_and_holds_it_until_a_person_starts(desk, tmp_path):
    first, second, third = desk.add(), desk.add(), desk.add(go_on=True)
    desk.wait_until_one_trains()
    desk.queue.move(third, -1)
    died(desk, first, second, third)
    again = Desk(tmp_path)
    assert again.queue.waiting() == [third, second]
    assert again.queue.held == 2
    assert [again.status(run_id) for run_id in (first, second, third)] == ["interrupted", "queued", "queued"]
    assert again.queue.active_id == ""
    desk.train = again.train
    again.queue.go()
    again.finish(2)
    assert again.trained == [(third, True), (second, False)]
    assert not again.queue.held
    desk.queue._held = True
    desk.end.release()


def test_a_start_goes_before_what_is_held_and_lets_it_go_on(desk, tmp_path):
    active, waiting = desk.add(), desk.add()
    desk.wait_until_one_trains()
    died(desk, active, waiting)
    again = Desk(tmp_path)
    desk.train = again.train
    started = again.add(now=True)
    again.finish(2)
    assert [run_id for run_id, _ in again.trained] == [started, waiting]
    desk.queue._held = True
    desk.end.release()


def test_a_start_is_prepared_beside_the_looks_and_two_people_who_start_at_once_start_one_run(desk, tmp_path):
    active, waiting = desk.add(), desk.add()
    desk.wait_until_one_trains()
    died(desk, active, waiting)
    again = Desk(tmp_path)
    desk.train = again.train
    answers: list[object] = []

    def ask(*questions: Callable[[], object]) -> None:
        """On a thread of its own, as another person's click."""

        def all_of_them() -> None:
            for question in questions:
                try:
                    answers.append(question())
                except StudioError as error:
                    answers.append(error.code)

        click = threading.Thread(target=all_of_them)
        click.start()
        click.join(600)

    queue = again.queue
    with queue.preparing(now=True):
        ask(queue.mine, queue.waiting, lambda: queue.held, lambda: queue.active_id, queue.go, lambda: queue.active_id)
        ask(lambda: again.add(now=True))
        behind = threading.Thread(target=again.add)
        behind.start()
        started = again.write()
        queue.add(started, now=True)
    assert answers == [True, [waiting], 1, "", None, "", "run-starting"]
    behind.join(600)
    again.finish(3)
    assert [run_id for run_id, _ in again.trained] == [started, waiting, "run-0004"]
    desk.queue._held = True
    desk.end.release()


def test_where_a_start_is_given_up_the_next_one_trains(desk):
    def refused() -> None:
        with desk.queue.preparing(now=True):
            waiting.append(desk.write())
            with desk.queue._lock:
                desk.queue._order.append(Waiting(waiting[0]))
            raise StudioError("run-refused", findings=[])

    waiting: list[str] = []
    with pytest.raises(StudioError, match="run-refused"):
        refused()
    assert desk.wait_until_one_trains() == waiting[0]
    desk.finish(1)


def test_closing_starts_no_other_run_and_a_damaged_order_is_none(desk, tmp_path):
    first, second = desk.add(), desk.add()
    desk.wait_until_one_trains()
    desk.end.release()
    desk.queue.close(600)
    assert desk.status(first) == "stopped"
    assert desk.status(second) == "queued"
    desk.workspace.queue.write_text('[{"ru', encoding="utf-8")
    died(desk, second)
    assert Desk(tmp_path).queue.waiting() == []
    assert desk.status(second) == "interrupted"


def test_a_paused_run_waits_and_the_queue_with_it(desk):
    first, second = desk.add(), desk.add()
    desk.wait_until_one_trains()
    for verb in (desk.queue.pause, desk.queue.go_on):
        with pytest.raises(StudioError, match="run-not-active"):
            verb(second)
    desk.queue.pause(first)
    desk.end.release()
    assert desk.queue.pausing
    assert (desk.queue.active_id, desk.queue.waiting()) == (first, [second])
    desk.queue.go_on(first)
    # The next one is not asked to pause.
    assert desk.wait_until_one_trains() == second
    assert not desk.queue.pausing
    assert desk.status(first) == "finished"
    desk.finish(1)


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_stop_and_the_program_s_end_end_a_pause_for_good(desk, end):
    run_id = desk.add()
    desk.wait_until_one_trains()
    desk.queue.pause(run_id)
    thread = desk.queue._thread._thread
    if end == "stop":
        desk.queue.stop(run_id)
        desk.queue.pause(run_id)
        assert not desk.queue.pausing
        desk.end.release()
    else:
        desk.end.release()
        desk.queue.close(600)
    thread.join(600)
    assert desk.status(run_id) == "stopped"


def test_a_run_of_several_processes_does_not_pause(desk, monkeypatch):
    trained = threading.Event()
    monkeypatch.setattr(launch, "train_launched", lambda *values, **more: trained.wait(600))
    run_id = desk.add(processes=2)
    with pytest.raises(StudioError, match="pause-processes"):
        desk.queue.pause(run_id)
    assert not desk.queue.pausing
    trained.set()


def test_of_two_programs_on_a_folder_the_first_has_the_queue_until_it_ends(desk, tmp_path):
    first, second = desk.add(), desk.add()
    desk.wait_until_one_trains()
    other = Desk(tmp_path)
    assert not other.queue.mine()
    assert other.queue.waiting() == []
    for now in (True, False):
        with pytest.raises(StudioError, match="queue-elsewhere"):
            other.add(now=now)
    # Nothing was prepared, and nothing of the first one's has changed.
    assert sorted(path.name for path in desk.workspace.checkpoints.glob("run-*")) == [first, second]
    assert (desk.queue.waiting(), desk.status(first), desk.status(second)) == ([second], "running", "queued")
    desk.end.release()
    desk.queue.close(600)
    desk.folder(second).update(process={})
    assert other.queue.mine()
    assert (other.queue.waiting(), other.queue.held) == ([second], 1)
    with pytest.raises(StudioError, match="queue-elsewhere"):
        desk.add()
    other.queue.close(600)


def test_a_program_that_is_killed_lets_go_of_the_queue(tmp_path):
    words = (
        "import sys, pathlib; from glmstudio.workspace import Workspace;"
        "from glmstudio.studio.run_queue import RunQueue;"
        "queue = RunQueue(Workspace(pathlib.Path(sys.argv[1])).ensure(), None);"
        "print(queue.mine(), flush=True); input()"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", words, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "True\n"
    desk = Desk(tmp_path)
    assert not desk.queue.mine()
    program.kill()
    program.communicate()
    assert desk.queue.mine()
    desk.queue.close(600)
