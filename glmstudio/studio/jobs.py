"""Long work on threads of its own, one of a kind at a time: what it is about, how far it is, how the last one ended.
Knows no page, no words and no work."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.studio.run_thread import RunThread

# (what is said where one is under way, what is said of a bug in it); the job's subject fills both sentences.
KINDS = {
    "evaluation": ("evaluation-active", "evaluation-failed"),
    "export": ("export-active", "export-failed"),
    "download": ("download-active", "base-failed"),
}
# `report(done, total, stage)`: rows, bytes or tensors so far, and the work's own word for what it does now.
Report = Callable[..., None]
Work = Callable[[Report, Callable[[], bool]], Any]


@dataclass(frozen=True)
class BackgroundJob:
    """One work as it stood at a moment. `subject` names what it is about, to be put into words. `state` is running,
    done, failed or stopped: asked to end, before it was through. `result` is what the work gave, `error` why not."""

    id: str
    kind: str
    subject: Mapping[str, str]
    state: str = "running"
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    result: Any = None
    error: StudioError | None = None

    @property
    def running(self) -> bool:
        return self.state == "running"


class TimeLeft:
    """Seconds until something ends, from how fast it went since the first time that one asked."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def seconds(self, done: int, total: int) -> float | None:
        """None until some of it has come."""
        now = time.monotonic()
        began, first = self._first = self._first or (now, done)
        return (now - began) / (done - first) * (total - done) if done > first else None


class Jobs:
    """Safe to call from several threads. `version` changes with everything that `all` would tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, BackgroundJob] = {}
        self._threads = {kind: self._thread(kind, *codes) for kind, codes in KINDS.items()}
        self.version = 0

    def begin(self, kind: str, subject: Mapping[str, str], work: Work, *, total: int = 0) -> BackgroundJob:
        """Begins one of `KINDS`; returns at once. Work that ends early because it was asked to raises a StudioError
        `…-stopped` or gives what it has. Raises StudioError where one of its kind is under way."""
        job = BackgroundJob(uuid.uuid4().hex, kind, subject, total=total)

        def prepare() -> tuple[str, Callable[[Callable[[], bool]], None]]:
            self._set(job)
            return job.id, partial(self._run, kind, work)

        self._threads[kind].start(prepare)
        return job

    def stop(self, job_id: str) -> None:
        """Asks that job to end, where it is under way; returns at once."""
        for thread in self._threads.values():
            thread.stop(job_id)

    def now(self, kind: str) -> BackgroundJob | None:
        """The one under way, or the last one."""
        return self._latest.get(kind)

    def all(self) -> list[BackgroundJob]:
        """Of each kind the one under way, or the last one; the newest last."""
        with self._lock:
            return list(self._latest.values())

    def forget(self, kind: str) -> None:
        """What became of the last one is of no interest any more."""
        with self._lock:
            if kind in self._latest and not self._latest[kind].running:
                del self._latest[kind]
                self.version += 1

    def close(self, seconds: float) -> None:
        """Asks what is under way to end and waits for each, at most that long."""
        for thread in self._threads.values():
            thread.close(seconds)

    def _thread(self, kind: str, busy: str, bug: str) -> RunThread:
        return RunThread(
            busy=lambda _: StudioError(busy, **self._latest[kind].subject),
            bug=lambda reason: StudioError(bug, **self._latest[kind].subject, reason=reason),
            on_failure=partial(self._fail, kind),
        )

    def _run(self, kind: str, work: Work, should_stop: Callable[[], bool]) -> None:
        left, stage_now = TimeLeft(), ""
        if total := self._latest[kind].total:
            left.seconds(0, total)

        def report(done: int, total: int, stage: str = "") -> None:
            nonlocal left, stage_now
            if stage != stage_now:
                left, stage_now = TimeLeft(), stage
            self._change(kind, stage=stage, done=done, total=total, seconds_left=left.seconds(done, total))

        result = work(report, should_stop)
        cut = should_stop() and self._latest[kind].done < self._latest[kind].total
        self._change(kind, state="stopped" if cut else "done", seconds_left=None, result=result)

    def _fail(self, kind: str, error: StudioError) -> None:
        state = "stopped" if error.code.endswith("-stopped") else "failed"
        self._change(kind, state=state, seconds_left=None, error=error)

    def _change(self, kind: str, **changes: Any) -> None:
        self._set(replace(self._latest[kind], **changes))

    def _set(self, job: BackgroundJob) -> None:
        with self._lock:
            # A new one goes behind the others.
            if (latest := self._latest.get(job.kind)) is not None and latest.id != job.id:
                del self._latest[job.kind]
            self._latest[job.kind] = job
            self.version += 1
