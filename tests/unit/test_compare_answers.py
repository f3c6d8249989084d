"""The handler that streams answers: whatever goes wrong, Generate comes back, and what was said stays."""

from types import SimpleNamespace

import pytest

from glmstudio.errors import StudioError
from glmstudio.inference.compare import Answer, Comparison
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings
from glmstudio.studio.base_slot import BaseStatus
from glmstudio.studio.jobs import BackgroundJob
from glmstudio.ui import compare_answers
from glmstudio.ui.compare_answers import Answering, Live

REF = AdapterRef("run-0001", "best", "0123456789abcdef", 7)
REQUEST = SimpleNamespace(session_hash="one")
RUN = SimpleNamespace(id="run-0001", number=1, best_step=3, best_eval_loss=0.5, step=9)


def shot(reason: str = "") -> Comparison:
    return Comparison((Answer("__base__", "blue", 1), Answer(REF.digest, "red", 1, finish_reason=reason)), 9, 0, REF)


class Fake:
    """A studio whose answers come from a script; an exception in it is raised."""

    def __init__(self, *script: object, run: object = RUN) -> None:
        self._script, self._run = script, run
        self.active, self.probing, self.evaluation, self.base = None, False, None, "ready"

    def base_status(self) -> BaseStatus:
        return BaseStatus(self.base, "x")

    def active_run(self) -> object:
        return self.active

    def job(self, kind: str) -> object:
        return getattr(self, kind)

    def adapters(self) -> list[AdapterRef]:
        return [AdapterRef("run-0001", "best")]

    def run(self, run_id: str) -> object:
        if isinstance(self._run, Exception):
            raise self._run
        return self._run

    def compare(self, *_: object):
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            yield step


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch):
    """What the handler sends last; afterwards the browser is not marked as answering any more."""
    monkeypatch.setattr(compare_answers, "language_of", lambda request: "en")

    def last(studio: Fake, run: str = "run-0001@best") -> list:
        tab = SimpleNamespace(
            form=SimpleNamespace(read=lambda typed: ((GenerationSettings(),), [])),
            generate=None,
            stop=None,
            message=None,
        )
        answering = Answering(tab, studio)
        answering._live["one"] = Live("text")
        try:
            return list(answering.on_answer(REQUEST, "i", "x", run, None))[-1]
        finally:
            assert answering._live == {}

    return last


def test_the_title_says_which_content_has_answered(answered):
    _, _, head, said, _, asked, *_ = answered(Fake(shot(), shot("stop")))
    assert "Tuned: run 1 · best (step 7) · 012345" in head
    assert "red" in said
    assert asked.adapter == REF


@pytest.mark.parametrize("run", [StudioError("run-missing", folder="run-0001"), ValueError("a bug")])
def test_an_error_of_the_title_does_not_leave_generate_off(answered, run):
    studio = Fake(shot(), run=run)
    if isinstance(run, StudioError):
        assert "run-0001" in answered(studio)[4]
    else:
        with pytest.raises(ValueError, match="a bug"):
            answered(studio)


def test_an_answer_that_breaks_off_stays(answered):
    _, _, _, said, message, asked, *_ = answered(Fake(shot("cancelled"), StudioError("answer-base-gone", source="x")))
    assert "red" in said
    assert "exchanged or let go of" in message
    assert asked.judged == "red"


def test_a_checkpoint_that_has_gone_is_told_instead_of_the_base_alone(answered):
    assert "run-0009@best" in answered(Fake(shot()), run="run-0009@best")[4]


@pytest.mark.parametrize(
    ("works", "words"),
    [
        ({}, "waiting…"),
        ({"base": "released"}, "The base is loading…"),
        ({"probing": True}, "waiting for the measurement before a run…"),
        ({"probing": True, "evaluation": BackgroundJob("1", "evaluation", {})}, "taking turns with an evaluation…"),
        ({"active": SimpleNamespace(number=3, status="running")}, "waiting for the next pause between steps of run 3…"),
        ({"active": SimpleNamespace(number=3, status="paused")}, "waiting…"),
    ],
)
def test_an_answer_that_waits_says_for_what(works, words):
    studio = Fake()
    vars(studio).update(works)
    answering = Answering(SimpleNamespace(generate=None, stop=None, message=None), studio)
    answering._live["one"] = Live("text")
    assert f">{words}</b>" in answering._waiting(REQUEST, "en")
    answering._live["two"] = Live("text")
    assert ">waiting for another answer…</b>" in answering._waiting(REQUEST, "en")
