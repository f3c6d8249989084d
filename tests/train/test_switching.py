"""Another base in the place of the one that worked: nothing of that one is left, and nobody who uses it is torn off."""

import threading
import weakref
from pathlib import Path

import pytest

from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.errors import StudioError
from glmstudio.evaluation import evaluate as evaluation
from glmstudio.models import loading
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.workspace import Workspace
from tests.tiny_families import native_folder
from tests.train.test_resume_commands import wait_for_training
from tests.ui.small_workspace import DATASET, prepare

SETTINGS = TrainingSettings(num_train_epochs=1, per_device_train_batch_size=16, max_source_length=60)
ASK = GenerationSettings(max_new_tokens=12)
REF = AdapterRef("run-0001", "best")


@pytest.fixture
def studio(tmp_path: Path):
    _, base = prepare(tmp_path)
    native_folder("llama", tmp_path / "other")
    studio = Studio(Workspace(tmp_path), base=BaseWish(base, "cpu", "fp32"))
    studio.start()
    studio.resident(wait=True)
    yield studio
    studio.close()


def planned(studio: Studio) -> None:
    studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS)
    studio._probing._thread.join(600)
    estimate = studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS).estimate
    assert estimate is not None


def trained(studio: Studio) -> None:
    studio.start_run(DATASET, LoraSettings(r=4), SETTINGS)
    wait_for_training()
    assert studio.run(REF.run_id).status == "finished"


def evaluated(studio: Studio) -> None:
    studio.start_evaluation(DATASET, REF.name, ASK)
    wait_for_training()


def exported(studio: Studio) -> None:
    studio.start_export("merged", REF, "", "en")
    wait_for_training()
    assert studio.job("export").state == "done"


def begun_evaluation(studio, monkeypatch) -> threading.Event:
    """An evaluation that is under way until the event is set."""
    begun, leave = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> dict:
        begun.set()
        assert leave.wait(600)
        return {"rows": []}

    monkeypatch.setattr(evaluation, "evaluate", slow)
    studio.start_evaluation(DATASET, REF.name, ASK)
    assert begun.wait(600)
    return leave


def test_a_plan_waits_for_rows_as_long_as_one_wants(studio, monkeypatch):
    look, go_on = studio._counting._known.look, threading.Event()

    def slow(*values):
        go_on.wait()
        return look(*values)

    monkeypatch.setattr(studio._counting._known, "look", slow)
    plan = studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS, seconds=0)
    findings, estimate = plan.findings, plan.estimate
    assert [(found.code, found.severity) for found in findings] == [("rows-counted", "error")]
    assert estimate is None
    before = studio.look(fresh=True)
    assert before.busy
    go_on.set()
    findings = studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS).findings
    assert "plan" in [found.code for found in findings]
    counted = studio.look(fresh=True)
    assert (counted.counting, counted.rows == before.rows) == (False, False)
    studio.save_example(Example("Name it.", "Oslo is grey.", "grey", dataset=DATASET))
    assert studio.look(fresh=True).rows != counted.rows
    changed = studio.plan_run(DATASET, LoraSettings(r=4), SETTINGS, seconds=120).findings
    assert changed[-1].count == findings[-1].count + 1


def other(studio: Studio) -> str:
    return str(studio._workspace.root / "other")


def test_after_a_switch_nothing_of_the_former_base_is_left(studio, monkeypatch):
    planned(studio)
    trained(studio)
    for ref in (None, REF):
        *_, last = studio.compare("Name it.", "Oslo is red.", ref, ASK)
    assert last.rows[1].tokens == 12
    evaluated(studio)
    assert studio.job("evaluation").state == "done"
    studio.preview("Name it.", "Oslo is red.", "red", SETTINGS)
    studio.count_tokens("Oslo")
    exported(studio)

    def failing(*_: object) -> None:
        raise StudioError("answer-not-finite", adapter="x")

    monkeypatch.setattr(evaluation, "score", failing)
    evaluated(studio)
    assert studio.job("evaluation").error.code == "answer-not-finite"
    model = studio.resident().base.model
    former = [weakref.ref(part) for part in (*model.modules(), *model.parameters(), *model.buffers())]
    former.append(weakref.ref(studio.resident()))
    assert len(former) > 30
    del model
    left: list[str] = []
    load = loading.load_base

    def loaded(*values: object, **wish: object) -> object:
        left.extend(type(part()).__name__ for part in former if part() is not None)
        return load(*values, **wish)

    monkeypatch.setattr(loading, "load_base", loaded)
    studio.use_base(other(studio), "none")
    assert studio.resident(wait=True).base.family.name == "llama"
    assert left == []


def test_an_answer_ends_with_its_base_and_says_so(studio):
    answers = studio.compare("Name it.", "Oslo is red.", None, GenerationSettings(max_new_tokens=40))
    first = next(answers)
    model = weakref.ref(studio.resident().base.model)
    studio.use_base(other(studio), "none")
    # The new base waits: two are never there.
    assert studio.base_status().state == "loading"
    assert model() is not None
    *said, last = [next(answers)]
    with pytest.raises(StudioError, match="answer-base-gone"):
        said += answers
    assert first.rows[0].finish_reason == ""
    assert last.rows[0].finish_reason == "cancelled"
    assert studio.resident(wait=True).base.family.name == "llama"


def test_what_must_not_be_torn_off_refuses_the_switch_by_name(studio, monkeypatch):
    trained(studio)
    leave = begun_evaluation(studio, monkeypatch)
    with pytest.raises(StudioError) as told:
        studio.use_base(other(studio), "none")
    assert (told.value.code, told.value.params) == ("base-evaluates", {"adapter": REF.name})
    leave.set()
    wait_for_training()
    studio.use_base(other(studio), "none")
    assert studio.resident(wait=True).base.family.name == "llama"


def test_of_use_and_start_in_one_moment_one_is_refused(studio, monkeypatch):
    """The start reads its rows, and then the other way round."""
    read = studio.training_rows
    refused: list[str] = []

    def meanwhile(*values: object) -> object:
        with pytest.raises(StudioError) as told:
            studio.use_base(other(studio), "none")
        refused.append(told.value.code)
        return read(*values)

    monkeypatch.setattr(studio, "training_rows", meanwhile)
    trained(studio)
    assert refused == ["run-starting"]
    monkeypatch.setattr(studio, "training_rows", read)
    with studio._base.use():
        studio.use_base(other(studio), "none")
        with pytest.raises(StudioError, match="base-loading"):
            studio.start_run(DATASET, LoraSettings(r=4), SETTINGS)
    assert [run.id for run in studio.runs()] == [REF.run_id]
    studio.resident(wait=True)


def test_a_start_that_waits_for_its_thread_is_not_overtaken(studio, monkeypatch):
    """The run is active before its thread has taken the base."""
    refused: list[str] = []
    take = studio._base.use

    def late(**wish: object) -> object:
        if wish.get("wait"):
            with pytest.raises(StudioError) as told:
                studio.use_base(other(studio), "none")
            refused.append(told.value.code)
        return take(**wish)

    monkeypatch.setattr(studio._base, "use", late)
    trained(studio)
    assert refused == ["run-active"]
    assert studio.page(Query(dataset=DATASET)).total > 0
