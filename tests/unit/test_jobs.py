"""Background jobs: one of a kind at a time, how far each is, how it ended, and a version that tells of every change."""

import threading

import pytest

from glmstudio.errors import StudioError
from glmstudio.studio import jobs as module
from glmstudio.studio.jobs import KINDS, BackgroundJob, Jobs, TimeLeft
from glmstudio.ui.language import LANGUAGES, words


def ended(jobs: Jobs, kind: str) -> BackgroundJob:
    """The job of this kind as it is once its thread has let go."""
    jobs._threads[kind]._thread.join(600)
    return jobs.now(kind)


class Slow:
    """Work that is under way until it may go on or is asked to stop."""

    def __init__(self) -> None:
        self.begun, self.leave = threading.Event(), threading.Event()

    def __call__(self, report, should_stop) -> str:
        report(1, 4, "reading")
        self.begun.set()
        while not (should_stop() or self.leave.is_set()):
            self.leave.wait(0.01)
        if self.leave.is_set():
            report(4, 4, "writing")
        return "what there is"


def test_a_job_is_told_from_its_begin_to_its_result():
    jobs, work = Jobs(), Slow()
    begun = jobs.begin("export", {"name": "out"}, work, total=4)
    assert (begun.kind, begun.subject, begun.running, begun.total) == ("export", {"name": "out"}, True, 4)
    assert work.begun.wait(600)
    now, before = jobs.now("export"), jobs.version
    assert (now.id, now.stage, now.done, now.total) == (begun.id, "reading", 1, 4)
    work.leave.set()
    now = ended(jobs, "export")
    assert (now.state, now.stage, now.done, now.result, now.error) == ("done", "writing", 4, "what there is", None)
    assert jobs.version > before
    assert jobs.all() == [now]


def test_one_of_a_kind_at_a_time_and_each_kind_beside_the_others():
    jobs, export, download = Jobs(), Slow(), Slow()
    jobs.begin("export", {"name": "out"}, export)
    jobs.begin("download", {"source": "owner/name"}, download)
    with pytest.raises(StudioError) as told:
        jobs.begin("export", {"name": "another"}, download)
    assert (told.value.code, told.value.params) == ("export-active", {"name": "out"})
    assert [job.kind for job in jobs.all() if job.running] == ["export", "download"]
    export.leave.set()
    ended(jobs, "export")
    jobs.begin("export", {"name": "another"}, export)
    assert [job.subject for job in jobs.all()] == [{"source": "owner/name"}, {"name": "another"}]
    jobs.close(600)


def test_a_stop_reaches_the_job_that_it_names():
    jobs, export, download = Jobs(), Slow(), Slow()
    first = jobs.begin("export", {"name": "out"}, export)
    second = jobs.begin("download", {"source": "owner/name"}, download)
    assert export.begun.wait(600)
    jobs.stop(first.id)
    assert ended(jobs, "export").state == "stopped"
    assert ended(jobs, "export").result == "what there is"
    assert jobs.now("download").running
    jobs.stop(first.id)
    download.leave.set()
    assert ended(jobs, "download").state == "done"
    jobs.stop(second.id)
    assert jobs.now("download").state == "done"


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (StudioError("export-stopped", folder="out"), "stopped", "export-stopped"),
        (StudioError("merge-ptuning", folder="x"), "failed", "merge-ptuning"),
        (ValueError("odd"), "failed", "export-failed"),
    ],
)
def test_why_a_job_has_no_result(error, state, code):
    def failing(report, should_stop):
        raise error

    jobs = Jobs()
    jobs.begin("export", {"name": "out"}, failing)
    now = ended(jobs, "export")
    assert (now.state, now.error.code, now.result) == (state, code, None)
    version = jobs.version
    jobs.forget("export")
    assert (jobs.all(), jobs.version) == ([], version + 1)


def test_the_time_left_follows_what_came_since_the_first_word(monkeypatch):
    now = iter((100.0, 110.0, 120.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    left = TimeLeft()
    # What an earlier download has left says nothing about this one's speed.
    assert left.seconds(40, 100) is None
    assert left.seconds(60, 100) == pytest.approx(20.0)
    assert left.seconds(100, 100) == 0.0


def test_each_stage_has_a_speed_of_its_own(monkeypatch):
    times = iter((0.0, 10.0, 1000.0, 1001.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    jobs, seen = Jobs(), []

    def work(report, should_stop):
        for done, stage in ((10, "merge"), (20, "merge"), (0, "write"), (50, "write")):
            report(done, 100, stage)
            seen.append(jobs.now("export").seconds_left)

    jobs.begin("export", {"name": "out"}, work)
    assert ended(jobs, "export").seconds_left is None
    assert seen == [None, pytest.approx(80.0), None, pytest.approx(1.0)]


def test_every_kind_has_its_sentences():
    params = {"adapter": "run-0001@best", "dataset": "demo", "name": "out", "source": "owner/name"}
    for language in LANGUAGES:
        for busy, bug in KINDS.values():
            for code in (busy, bug):
                assert words(language)[f"error.{code}"].format(**params, reason="why")
