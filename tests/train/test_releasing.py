"""The base let go of: its memory is free, looks do not bring it back, work does."""

import threading
import weakref

import pytest
import torch

from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings
from glmstudio.studio import Studio
from glmstudio.training import memory_shortage
from tests.train.test_resume_commands import wait_for_training
from tests.train.test_switching import (  # noqa: F401
    ASK,
    DATASET,
    REF,
    SETTINGS,
    begun_evaluation,
    evaluated,
    planned,
    studio,
    trained,
)


def let_go_of(studio: Studio) -> None:  # noqa: F811
    studio.release_base()
    for thread in threading.enumerate():
        if thread.name == "release base":
            thread.join(600)


def test_nothing_of_it_is_left_and_work_brings_it_back(studio, monkeypatch):  # noqa: F811
    planned(studio)
    trained(studio)
    evaluated(studio)
    question = "Name it.", "Oslo is red.", REF, ASK
    *_, before = studio.compare(*question)
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("card"))
    monkeypatch.setattr(memory_shortage, "give_back", lambda: emptied.append("heap"))
    model = studio.resident().base.model
    former = [weakref.ref(part) for part in (*model.modules(), *model.parameters(), *model.buffers())]
    former.append(weakref.ref(studio.resident()))
    del model
    let_go_of(studio)
    assert [type(part()).__name__ for part in former if part() is not None] == []
    assert emptied == ["card", "heap"]
    monkeypatch.undo()

    plan = studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS)
    findings, estimate = plan.findings, plan.estimate
    assert {found.code: found.severity for found in findings}["base-released"] == "info"
    assert not [found for found in findings if found.severity == "error"]
    assert (estimate, studio.probing, studio.count_tokens("Oslo")) == (None, False, None)
    assert studio.base_status().state == "released"

    *_, after = studio.compare(*question)
    assert [row.text for row in after.rows] == [row.text for row in before.rows]
    let_go_of(studio)
    evaluated(studio)
    assert studio.job("evaluation").state == "done"
    let_go_of(studio)
    run = studio.start_run(DATASET, LoraSettings(r=4), SETTINGS)
    wait_for_training()
    assert studio.run(run.id).status == "finished"


def test_what_works_on_it_keeps_it(studio, monkeypatch):  # noqa: F811
    trained(studio)
    leave = begun_evaluation(studio, monkeypatch)
    with pytest.raises(StudioError, match="base-evaluates"):
        studio.release_base()
    leave.set()
    wait_for_training()
    run = studio.start_run(DATASET, LoraSettings(r=4), SETTINGS)
    with pytest.raises(StudioError, match="run-active"):
        studio.release_base()
    wait_for_training()
    assert (studio.run(run.id).status, studio.base_status().state) == ("finished", "ready")
