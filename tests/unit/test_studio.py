"""Studio's verbs on a workspace of their own."""

import json
import threading

import pytest

from glmstudio.data.example import Example
from glmstudio.data.row_reader import Query
from glmstudio.data.verdicts import Answerer, Judgement
from glmstudio.errors import StudioError
from glmstudio.settings import NO_BASE, LoraSettings, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.workspace import Workspace
from tests.tiny_families import native_folder


@pytest.fixture
def studio(tmp_path):
    studio = Studio(Workspace(tmp_path))
    yield studio
    studio.close()


def test_the_demo_rows_come_once(studio, tmp_path):
    studio.start(load_base=False)
    (summary,) = studio.datasets()
    assert (summary.name, summary.train, summary.dev) == ("demo", 400, 80)
    again = Studio(Workspace(tmp_path))
    again.start(load_base=False)
    assert again.datasets() == [summary]
    again.close()


def test_an_import_tells_rows_rejects_and_columns_left_out(studio, tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"instruction": "i", "input": "x", "output": "y", "note": "n"}
    path.write_text(json.dumps(good) + "\nbroken\n", encoding="utf-8")
    for result in (studio.preview_import(path, "mine"), studio.import_file(path, "mine")):
        assert (result.good, [reject.line for reject in result.rejects]) == (1, [2])
        assert result.told.ignored == {"note": 1}
    assert studio.page(Query(dataset="mine")).total == 1


def test_an_empty_prompt_is_refused(studio):
    with pytest.raises(StudioError, match="example-empty"):
        studio.save_example(Example(" ", "", "target"))


def test_a_run_does_not_start_while_a_base_loads_that_was_chosen(studio, monkeypatch):
    begun, may = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        begun.set()
        may.wait(600)
        raise StudioError("base-missing", source="x")

    monkeypatch.setattr("glmstudio.models.loading.load_base", slow)
    studio.load_base()
    assert begun.wait(600)
    with pytest.raises(StudioError, match="base-loading"):
        studio.start_run("demo", LoraSettings(), TrainingSettings())
    may.set()


def test_without_a_base_the_one_of_last_time_is_loaded_when_it_is_needed(tmp_path):
    folder = str(native_folder("llama", tmp_path / "llama"))
    for wish in (BaseWish(folder, "cpu", "fp32"), BaseWish(NO_BASE, "cpu", "fp32")):
        studio = Studio(Workspace(tmp_path), base=wish)
        assert (studio.base_status().state, studio.base_status().source) == ("released", folder)
        assert studio.resident(wait=True).base.family.name == "llama"
        studio.close()
    assert Studio(Workspace(tmp_path / "new"), base=BaseWish(NO_BASE)).base_status().source == "embedded"


def test_a_judged_answer_becomes_a_feedback_row(studio):
    wrong = Judgement("worse", False, Answerer("embedded", "f", "run-0001@best", "d", "chat", {"top_p": 0.7}))
    row = studio.save_feedback("i", "x", "better", "mine", wrong)
    assert (row.source, row.tags, row.status) == ("feedback", ("corrected",), "done")
    assert studio.page(Query(source="feedback")).rows == [row]
    (verdict,) = studio._store.verdicts.of(row.id)
    assert (verdict.judgement, verdict.revision, verdict.created_at) == (wrong, 1, row.updated_at)


def test_the_command_line_names_what_differs_from_the_usual(studio):
    words = studio.command_line("my rows", LoraSettings(r=4), studio.default_settings("quick"))
    assert "--dataset 'my rows'" in words
    assert "--lora-rank 4" in words
    assert "--num-train-epochs" in words
    assert "--seed" not in words


def test_a_download_stays_in_its_folder_whatever_its_dataset_is_called(studio, tmp_path):
    folder = tmp_path / "out"
    for name in (f"{tmp_path}/elsewhere/run", "../x", ".."):
        studio._store.save(Example("i", "x", "y", dataset=name))
        assert studio.export_file(Query(dataset=name), "alpaca-json", folder).path.parent == folder
    assert len(list(folder.iterdir())) == 3
    assert not (tmp_path / "elsewhere").exists()
