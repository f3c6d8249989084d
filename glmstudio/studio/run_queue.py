"""The queue of training runs: one trains, the others wait in an order that people can change. Knows no page, no words.

A waiting run is whole on disk: its rows are frozen, its folder says `queued`, `queue.json` keeps the order. When a run
has ended, finished, stopped or failed, the next one starts. After a restart the waiting ones are still there, and are
held until a person starts a run or the queue. A run whose base is not the resident one at its turn fails with that
reason, and the queue goes on; it can be resumed on its own base.

Of several programs on one folder the first has its queue until it ends, however it ends; in the others nothing starts.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from glmstudio.errors import StudioError
from glmstudio.processes import this_process
from glmstudio.studio.run_thread import RunThread, nothing
from glmstudio.training import resume, runs
from glmstudio.training.pause_wish import PauseWish
from glmstudio.training.run_list import list_runs, mark_interrupted
from glmstudio.workspace import Workspace

if TYPE_CHECKING:
    from glmstudio.data.snapshot import Snapshot
    from glmstudio.models.resident import Resident
    from glmstudio.training.train import Progress


@dataclass(frozen=True)
class Waiting:
    """A run in the queue; `go_on` for one that was reopened and has trained before."""

    run_id: str
    go_on: bool = False


@dataclass(frozen=True)
class QueueState:
    """`active` is the id of the run that trains, `waiting` are those behind it, the next one first; `held` of them wait
    for a person to start the queue. The active run was asked to pause or to stop. `elsewhere` says why no run can start
    here."""

    active: str = ""
    waiting: tuple[str, ...] = ()
    held: int = 0
    pausing: bool = False
    stopping: bool = False
    elsewhere: StudioError | None = None


class RunQueue:
    """`trained_on` waits for the base and holds it for the run with that id, or raises why there is none; `choose` sees
    to what is open yet in a run whose turn has come. Safe to call from several threads."""

    def __init__(
        self,
        workspace: Workspace,
        trained_on: Callable[[str], AbstractContextManager["Resident"]],
        choose: "Callable[[runs.RunFolder, Snapshot, Resident], None]" = nothing,
    ) -> None:
        self._workspace, self._trained_on, self._choose = workspace, trained_on, choose
        self._lock = threading.RLock()
        self._one_at_a_time = threading.Lock()
        # The start that is being prepared, before which no other run begins.
        self._starting: object = None
        # Released by the system where the program dies.
        self._owner = FileLock(workspace.queue_lock, blocking=False, thread_local=False)
        self._order: list[Waiting] = []
        self._held = self._closed = False
        self._pause = PauseWish()
        self._progress: tuple[str, Progress] | None = None
        self._thread = RunThread(
            busy=lambda run_id: StudioError("run-active", run=run_id),
            bug=lambda reason: StudioError("run-failed", reason=reason, log=""),
            on_failure=self._fail,
            on_end=self._start_next,
        )

    def mine(self) -> bool:
        """Whether this program has the queue of its folder. Where no other one has it, it takes it: reads the order
        that an earlier process left, holds it, and marks the runs that died."""
        with self._lock:
            if self._owner.is_locked:
                return True
            try:
                self._owner.acquire()
            except Timeout:
                return False
            self._take_over()
            return True

    def _take_over(self) -> None:
        wanted = self._read()
        mark_interrupted(self._workspace.checkpoints, {entry.run_id for entry in wanted})
        found = list_runs(self._workspace.checkpoints)
        # What waits in another process that is still there is not ours.
        queued = {run.id for run in found if run.status == "queued" and not runs.is_alive(run)}
        self._order = [entry for entry in wanted if entry.run_id in queued]
        self._held = bool(self._order)
        for entry in self._order:
            # They are this process's now, for whoever asks whether a run is alive.
            self._folder(entry.run_id).update(process=this_process())

    def elsewhere(self) -> StudioError | None:
        """Why no run can start here: `queue-elsewhere` where another program has the queue."""
        return None if self.mine() else StudioError("queue-elsewhere", folder=str(self._workspace.root))

    def close(self, seconds: float) -> None:
        """Starts no more runs and asks the active one to stop; waits for its checkpoint, at most that long."""
        with self._lock:
            # Also for a run that is being made ready: it waits on disk.
            self._closed = True
            self._stop(self.active_id)
        self._thread.close(seconds)
        self._owner.release()

    @property
    def active_id(self) -> str:
        """The id of the run that trains now, or an empty string."""
        return self._thread.active_id

    @property
    def held(self) -> int:
        """How many runs wait for a person to start the queue."""
        return len(self._order) if self._held else 0

    def waiting(self) -> list[str]:
        """The ids of the runs that wait, the next one first."""
        return [entry.run_id for entry in self._order]

    @property
    def starting(self) -> bool:
        """Whether a run is made ready that starts at once."""
        return self._starting is not None

    @contextmanager
    def preparing(self, *, now: bool) -> Iterator[None]:
        """For making a run ready and adding it: one at a time, and no look waits for it.

        `now` is for one that starts at once: until it is added or given up no other run begins, and no second one is
        prepared so: two clicks or two tabs start one. Raises StudioError `queue-elsewhere` and, with `now`,
        `run-active` and `run-starting`.
        """
        mine = object()
        with self._lock:
            if error := self.elsewhere():
                raise error
            if now and self.active_id:
                raise StudioError("run-active", run=self.active_id)
            if now and self.starting:
                raise StudioError("run-starting")
            self._starting = mine if now else self._starting
        try:
            with self._one_at_a_time:
                yield
        finally:
            with self._lock:
                if self._starting is mine:
                    self._starting = None
                    self._start_next()

    def add(self, run_id: str, *, now: bool = False, go_on: bool = False) -> None:
        """Puts a run that is whole on disk behind the others, with `now` before them, and starts the first one where
        none trains; `go_on` for one that has trained before. Ends a hold. To be called within `preparing`."""
        with self._lock:
            order = [*self._order]
            order.insert(0 if now else len(order), Waiting(run_id, go_on))
            self._write(order)
            self._order = order
            if now:
                self._starting = None
            self.go()

    def go(self) -> None:
        """Ends a hold: the first run starts where none trains."""
        with self._lock:
            self._held = False
            self._start_next()

    def move(self, run_id: str, places: int) -> None:
        """Moves a waiting run that many places, -1 is one nearer to its turn. Raises StudioError `run-not-queued`."""
        with self._lock:
            place = self._place(run_id)
            entry = self._order.pop(place)
            self._order.insert(max(place + places, 0), entry)
            self._write(self._order)

    def remove(self, run_id: str) -> None:
        """Takes a waiting run out. Its folder goes away; one that has trained before stays, to be resumed.

        Raises StudioError `run-not-queued`.
        """
        with self._lock:
            entry = self._order.pop(self._place(run_id))
            self._write(self._order)
            if entry.go_on:
                self._folder(run_id).update(status="stopped")
            else:
                shutil.rmtree(self._folder(run_id).path)

    def stop(self, run_id: str) -> None:
        """Asks the run to stop and keep a checkpoint; returns at once. Raises StudioError `run-not-active`."""
        with self._lock:
            self._refuse_other(run_id)
            self._stop(run_id)

    @property
    def stopping(self) -> bool:
        """Whether the active run was asked to stop."""
        return self._thread.stopping

    @property
    def pausing(self) -> bool:
        """Whether the active run was asked to pause; its status says whether it waits already."""
        return self._pause.asked

    def pause(self, run_id: str) -> None:
        """Asks the run to wait until `go_on`; returns at once. The other runs wait with it.

        Raises StudioError `run-not-active`, `pause-processes`.
        """
        with self._lock:
            self._refuse_other(run_id)
            processes = self._folder(run_id).read().settings.num_processes
            if processes > 1:
                raise StudioError("pause-processes", run=run_id, processes=processes)
            # A stop is the last word: nothing would end a pause behind it.
            if not self._thread.stopping:
                self._pause.ask()

    def go_on(self, run_id: str) -> None:
        """Ends the run's pause. Raises StudioError `run-not-active`."""
        with self._lock:
            self._refuse_other(run_id)
            self._pause.take_back()

    def state(self) -> QueueState:
        """The queue as it is now."""
        return QueueState(
            self.active_id, tuple(self.waiting()), self.held, self.pausing, self.stopping, self.elsewhere()
        )

    def latest_progress(self) -> "tuple[str, Progress | None]":
        """The run that this process trains or trained last, and where it stands."""
        return self._progress or ("", None)

    def progress(self, run_id: str) -> "Progress | None":
        latest, progress = self.latest_progress()
        return progress if latest == run_id else None

    def _start_next(self) -> None:
        with self._lock:
            if self._held or self._closed or not self._order or self.active_id or self.starting:
                return
            entry = self._order.pop(0)
            self._write(self._order)
            self._progress = None
            self._pause = pause = PauseWish()
            self._thread.start(lambda: (entry.run_id, lambda should_stop: self._train(entry, should_stop, pause)))

    def _stop(self, run_id: str) -> None:
        self._thread.stop(run_id)
        self._pause.take_back()

    def _refuse_other(self, run_id: str) -> None:
        if run_id != self.active_id:
            raise StudioError("run-not-active", run=run_id)

    def _train(self, entry: Waiting, should_stop: Callable[[], bool], pause: PauseWish) -> None:
        from glmstudio.training.launch import train_launched
        from glmstudio.training.train import train

        folder = self._folder(entry.run_id)

        def tell(progress: "Progress") -> None:
            self._progress = entry.run_id, progress

        with self._trained_on(entry.run_id) as resident:
            run = folder.read()
            resume.refuse_other_base(run, runs.BaseFacts.of(resident.base))
            frozen = folder.rows(self._workspace.snapshots)
            self._choose(folder, frozen, resident)
            if run.settings.num_processes > 1:
                train_launched(folder, self._workspace.root, should_stop=should_stop, on_progress=tell)
                return
            train(
                resident, folder, frozen.train, frozen.dev, run.lora, run.settings,
                should_stop=should_stop, pause=pause, on_progress=tell, resume=entry.go_on, tokens=frozen.folder,
            )  # fmt: skip

    def _fail(self, error: StudioError) -> None:
        folder = self._folder(self.active_id)
        # train() has written its failures itself.
        if folder.read().status == "queued":
            failure = {"code": error.code, "params": dict(error.params)}
            folder.update(status="failed", error=failure, finished_at=time.time())

    def _folder(self, run_id: str) -> runs.RunFolder:
        return runs.RunFolder(self._workspace.run_folder(run_id))

    def _place(self, run_id: str) -> int:
        if run_id not in self.waiting():
            raise StudioError("run-not-queued", run=run_id)
        return self.waiting().index(run_id)

    def _read(self) -> list[Waiting]:
        try:
            return [Waiting(**entry) for entry in json.loads(self._workspace.queue.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def _write(self, order: list[Waiting]) -> None:
        new = self._workspace.queue.with_suffix(".json.new")
        new.write_text(json.dumps([asdict(entry) for entry in order], indent=2) + "\n", encoding="utf-8")
        os.replace(new, self._workspace.queue)
