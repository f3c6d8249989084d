"""One work at a time: a stop reaches the work that it names and no other, a failure leaves nothing behind."""

import threading
import weakref

from glmstudio.errors import StudioError
from glmstudio.studio.run_thread import RunThread


def runs(heard: list[StudioError]) -> RunThread:
    return RunThread(
        busy=lambda _: StudioError("busy"),
        bug=lambda reason: StudioError("bug", reason=reason),
        on_failure=heard.append,
    )


def test_a_stop_that_comes_late_does_not_reach_the_next_work():
    thread = runs([])
    stopped: dict[str, bool] = {}
    leave = threading.Event()

    def work(name: str):
        def waits(should_stop) -> None:
            assert leave.wait(600)
            stopped[name] = should_stop()

        return name, waits

    thread.start(lambda: work("first"))
    thread.stop("first")
    assert thread.stopping
    leave.set()
    thread._thread.join(600)
    leave.clear()
    thread.start(lambda: work("second"))
    # Whoever looked at the first one presses Stop now.
    thread.stop("first")
    assert not thread.stopping
    leave.set()
    thread._thread.join(600)
    assert stopped == {"first": True, "second": False}


def test_a_failure_that_is_kept_keeps_nothing_of_what_failed():
    class Model:
        pass

    heard: list[StudioError] = []
    seen = []

    def fails(should_stop) -> None:
        model = Model()
        seen.append(weakref.ref(model))
        raise StudioError("out-of-memory", run="run-0001") from ValueError(model and "why")

    thread = runs(heard)
    thread.start(lambda: ("one", fails))
    thread._thread.join(600)
    assert [(error.code, error.params) for error in heard] == [("out-of-memory", {"run": "run-0001"})]
    assert seen[0]() is None
