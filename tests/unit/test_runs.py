"""Run folders: what is written is read back, damaged folders do no harm, dead runs are told from live ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.metrics import MetricWriter
from glmstudio.training.row_ids import keep_row_ids, row_ids
from glmstudio.training.run_list import list_runs, mark_interrupted
from glmstudio.training.runs import (
    RunFolder,
    is_alive,
    new_run_id,
)
from glmstudio.workspace import Workspace

BASE = SimpleNamespace(
    source="embedded",
    family=SimpleNamespace(name="chatglm"),
    dtype="torch.float32",
    device="cpu",
    quantization="none",
    fingerprint="ab-cd",
)
LORA = LoraSettings(r=4, target_modules=("dense", "query_key_value"))
SETTINGS = TrainingSettings(max_source_length=123)


def create(folder: Path, **options):
    return RunFolder(folder).create(
        snapshot_id="abc", dataset="demo", base=BASE, lora=LORA, settings=SETTINGS, **options
    )


def adapter(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize("name", ["best", "last", "checkpoint-7", ".writing"])
def test_what_was_there_before_a_run_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(StudioError) as caught:
            create(tmp_path / "run", overwrite=overwrite)
        assert (caught.value.code, caught.value.params["name"]) == ("run-folder-taken", name)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("run_id", ["../x", "/etc", "..", "", "a/b"])
def test_a_run_is_a_folder_of_the_workspace(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(StudioError, match="run-missing"):
        Workspace(tmp_path).run_folder(run_id)


@pytest.mark.parametrize(("ids", "told"), [((31, 7), [31, 7]), ((None, None), [1, 2])])
def test_training_rows_come_back_with_the_ids_of_the_table(tmp_path: Path, ids: tuple, told: list[int]) -> None:
    train = [Example("Name it.", text, "red", id=id) for text, id in zip("ab", ids, strict=True)]
    frozen = snapshot.freeze(train, [], tmp_path / "snapshots")
    folder = RunFolder(tmp_path / "run")
    folder.create(snapshot_id=frozen.id, dataset="demo", base=BASE, lora=LORA, settings=SETTINGS)
    keep_row_ids(folder.path, frozen.train)
    rows = folder.rows(tmp_path / "snapshots").train
    assert ([row.id for row in rows], row_ids(rows), [row.input for row in rows]) == (list(ids), told, ["a", "b"])
    folder.update(status="failed")
    folder.create(snapshot_id="other", dataset="demo", base=BASE, lora=LORA, settings=SETTINGS, overwrite=True)
    assert not (folder.path / "row_ids.json").exists()


@pytest.mark.parametrize(("old", "new"), [(True, "on"), (False, "off")])
def test_a_run_of_an_older_version_says_yes_or_no_to_gradient_checkpointing(
    tmp_path: Path, old: bool, new: str
) -> None:
    create(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    values = json.loads(path.read_text())
    values["settings"]["gradient_checkpointing"] = old
    del values["settings"]["token_budget"]
    for name in ("token_budget", "checkpointing"):
        del values[name]
    path.write_text(json.dumps(values))
    run = RunFolder(tmp_path / "run").read()
    assert (run.settings.gradient_checkpointing, run.checkpointing, run.token_budget) == (new, old, 0)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    before = time.time()
    run = create(tmp_path / "run-0012")
    assert RunFolder(tmp_path / "run-0012").read() == run
    assert (run.id, run.number, run.status, run.base.dtype) == ("run-0012", 12, "queued", "float32")
    assert (run.lora, run.settings) == (LORA, SETTINGS)
    assert {"python", "torch", "transformers", "peft"} <= set(run.versions)
    assert before <= run.created_at <= time.time()
    changed = RunFolder(tmp_path / "run-0012").update(status="failed", error={"code": "odd", "params": {"step": 3}})
    assert changed.error == {"code": "odd", "params": {"step": 3}}
    assert RunFolder(tmp_path / "run-0012").read() == changed


def test_fields_of_another_version_do_no_harm(tmp_path: Path) -> None:
    create(tmp_path / "run-0001")
    path = tmp_path / "run-0001" / "run.json"
    values = json.loads(path.read_text())
    values["later"] = values["settings"]["later"] = 1
    del values["settings"]["warmup_ratio"], values["versions"]
    path.write_text(json.dumps(values))
    run = RunFolder(tmp_path / "run-0001").read()
    assert run.settings.warmup_ratio == TrainingSettings().warmup_ratio
    assert run.versions == {}


def test_missing_and_damaged_runs_are_told_and_left_out_of_the_list(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="run-missing"):
        RunFolder(tmp_path / "none").read()
    for name, text in (("half", '{"id": "ha'), ("list", "[]"), ("empty", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
        with pytest.raises(StudioError, match="run-unreadable"):
            RunFolder(tmp_path / name).read()
    create(tmp_path / "run-0001")
    assert [run.id for run in list_runs(tmp_path)] == ["run-0001"]
    assert list_runs(tmp_path / "nowhere") == []


def test_the_newest_run_comes_first_and_ids_go_on(tmp_path: Path) -> None:
    assert new_run_id(tmp_path) == "run-0001"
    for number, created in ((1, 10.0), (2, 30.0), (10, 20.0)):
        create(tmp_path / f"run-{number:04d}")
        RunFolder(tmp_path / f"run-{number:04d}").update(created_at=created)
    assert [run.number for run in list_runs(tmp_path)] == [2, 10, 1]
    assert new_run_id(tmp_path) == "run-0011"


def test_checkpoints_are_the_folders_with_an_adapter(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.checkpoints() == []
    for name in ("checkpoint-9", "checkpoint-100", "last", "best", "checkpoint-x"):
        adapter(folder.path / name)
    (folder.path / "checkpoint-50").mkdir()
    assert folder.checkpoints() == ["best", "last", "checkpoint-100", "checkpoint-9"]
    folder.keep_newest(1)
    assert folder.checkpoints() == ["best", "last", "checkpoint-100"]


def test_a_folder_is_put_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.put("best", lambda path: (path / "a").write_text("old") and None)

    def fail(path: Path) -> None:
        (path / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StudioError, match="disk-full"):
        folder.put("best", fail)
    assert (tmp_path / "best" / "a").read_text() == "old"
    folder.put("best", lambda path: (path / "b").write_text("new") and None)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["b"]


def test_a_run_is_replaced_only_when_asked_and_never_while_it_lives(tmp_path: Path) -> None:
    create(tmp_path / "run")
    with pytest.raises(StudioError, match="run-active"):
        create(tmp_path / "run", overwrite=True)
    RunFolder(tmp_path / "run").update(status="finished")
    with pytest.raises(StudioError, match="run-exists"):
        create(tmp_path / "run")
    adapter(tmp_path / "run" / "best")
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert create(tmp_path / "run", overwrite=True).status == "queued"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["mine.txt", "run.json"]


def test_runs_of_dead_processes_become_interrupted(tmp_path: Path) -> None:
    create(tmp_path / "run-0001")
    code = (
        "import pathlib, sys\nfrom tests.unit.test_runs import create\nfrom glmstudio.training.runs import RunFolder\n"
        "create(pathlib.Path(sys.argv[1]))\nRunFolder(pathlib.Path(sys.argv[1])).update(status='running', step=7)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run-0002")], cwd=root, check=True)
    create(tmp_path / "run-0003")
    RunFolder(tmp_path / "run-0003").update(status="finished", process={})
    # The number of a dead process was given to another one, here to this one.
    create(tmp_path / "run-0004")
    RunFolder(tmp_path / "run-0004").update(process={"pid": os.getpid(), "started": 5.0})
    MetricWriter(tmp_path / "run-0004" / "metrics.jsonl").write("train", step=9, epoch=1.0, loss=0.5)
    assert sorted(run.id for run in mark_interrupted(tmp_path)) == ["run-0002", "run-0004"]
    assert [run.status for run in sorted(list_runs(tmp_path), key=lambda run: run.id)] == [
        "queued",
        "interrupted",
        "finished",
        "interrupted",
    ]
    assert [RunFolder(tmp_path / name).read().step for name in ("run-0002", "run-0004")] == [7, 9]
    assert mark_interrupted(tmp_path) == []
    assert is_alive(RunFolder(tmp_path / "run-0001").read())


def test_a_run_from_before_the_styles_is_instruction(tmp_path: Path) -> None:
    create(tmp_path / "run")
    values = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    del values["settings"]["prompt_style"], values["settings"]["method"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(values | {"prompt_style": "instruction"}), encoding="utf-8")
    assert RunFolder(tmp_path / "run").read().settings == SETTINGS


def test_a_reader_beside_the_writer_always_finds_a_whole_file(tmp_path: Path) -> None:
    create(tmp_path / "run")
    code = (
        "import pathlib, sys\nfrom glmstudio.training.runs import RunFolder\n"
        "for step in range(300):\n    RunFolder(pathlib.Path(sys.argv[1])).update(step=step)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], cwd=root) as writer:
        steps = [0]
        while writer.poll() is None:
            steps.append(RunFolder(tmp_path / "run").read().step)
    assert writer.returncode == 0
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
