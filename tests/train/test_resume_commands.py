"""`train --resume` and the page's way to go on: the same bytes as without the break, and what is refused by name."""

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from glmstudio import cli, terminal
from glmstudio.data import formats
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.training.resume import begins_anew
from glmstudio.training.run_list import mark_interrupted
from glmstudio.training.runs import RunFolder
from glmstudio.ui.forms import Form
from glmstudio.ui.train_begin import Beginning
from glmstudio.workspace import Workspace
from tests.tiny_base import rows, tiny_model, tiny_tokenizer
from tests.train.runs import assert_same, bytes_of

SETTINGS = [
    "--lora-rank", "4", "--lora-dropout", "0.2", "--batch-size", "4", "--num-train-epochs", "2", "--save-steps", "4",
    "--learning-rate", "1e-2", "--max-source-length", "60", "--max-target-length", "40",
]  # fmt: skip


def train(folder: Path, name: str, *more: str) -> int:
    return cli.main(
        [
            "train", "--base", str(folder / "base"), "--dtype", "fp32", "--train-path", str(folder / "train.jsonl"),
            "--dev-path", str(folder / "dev.jsonl"), "--output-dir", str(folder / name), *SETTINGS, *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base, rows, the whole run `straight` and the run `broken`, which ended behind its sixth step."""
    folder = tmp_path_factory.mktemp("commands")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    for split, count, first in (("train", 20, 0), ("dev", 4, 300)):
        formats.write(folder / f"{split}.jsonl", rows(count, split=split, first=first), "context-target")
    assert train(folder, "straight") == 0
    with pytest.MonkeyPatch.context() as patch:

        def break_off(self, progress) -> None:
            if progress.step == 6:
                raise KeyboardInterrupt

        patch.setattr(terminal.RunPrinter, "__call__", break_off)
        with pytest.raises(KeyboardInterrupt):
            train(folder, "broken")
    return folder


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder / "broken", tmp_path / "broken")


def test_a_run_goes_on_from_its_folder_alone(folder: Path, broken: Path, capsys) -> None:
    assert cli.main(["train", "--resume", "--output-dir", str(broken)]) == 0
    assert_same(broken, folder / "straight")
    printed = capsys.readouterr().out
    assert "step 6/10" not in printed.split("step 5/10")[0]
    assert "step 4/10" not in printed
    assert "finished at step 10/10" in printed


def test_the_same_command_with_resume_goes_on_too(folder: Path, broken: Path) -> None:
    shutil.move(broken, folder / "again")
    assert train(folder, "again", "--resume") == 0
    assert_same(folder / "again", folder / "straight")


def test_flags_that_contradict_the_run_are_named(folder: Path, broken: Path, capsys) -> None:
    before = (broken / "run.json").read_bytes()
    command = ["train", "--resume", "--output-dir", str(broken)]
    changed = [
        "--lora-rank", "8", "--num-train-epochs", "9", "--dtype", "bf16",
        "--quantization", "4bit", "--train-path", str(folder / "dev.jsonl"), "--overwrite-output-dir",
    ]  # fmt: skip
    assert cli.main([*command, *changed]) == 2
    told = capsys.readouterr().err
    for flag in changed:
        if flag.startswith("--"):
            assert flag in told
    assert "--learning-rate" not in told
    assert (broken / "run.json").read_bytes() == before


def test_what_cannot_go_on_is_a_sentence(folder: Path, broken: Path, tmp_path: Path, capsys) -> None:
    def told(place: Path) -> str:
        assert cli.main(["train", "--resume", "--root", str(tmp_path), "--output-dir", str(place)]) == 2
        return capsys.readouterr().err

    assert "leave out --resume" in told(tmp_path / "none")
    assert "start a new run" in told(folder / "straight")
    shutil.rmtree(broken / "snapshots")
    assert "Start a new run" in told(broken)


def test_the_page_goes_on_with_a_run_of_either_kind(folder: Path, tmp_path: Path) -> None:
    studio = Studio(Workspace(tmp_path), base=BaseWish(str(folder / "base"), dtype="fp32"))
    studio.load_base()
    shutil.copytree(folder / "broken", studio._workspace.run_folder("broken"))
    studio.resident(wait=True)
    with pytest.raises(StudioError, match="resume-nothing"):
        studio.resume_run("run-0009")
    assert studio.resume_run("broken").status in ("queued", "running", "finished")
    wait_for_training()
    assert_same(studio._workspace.run_folder("broken"), folder / "straight")

    for split in ("train", "dev"):
        studio.import_file(folder / f"{split}.jsonl", "mine", split)
    settings = TrainingSettings(
        num_train_epochs=2, learning_rate=1e-2, per_device_train_batch_size=4, save_steps=4,
        max_source_length=60, max_target_length=40,
    )  # fmt: skip
    run_id = studio.start_run("mine", LoraSettings(r=4, lora_dropout=0.2), settings).id
    wait_for_training()
    run = RunFolder(studio._workspace.run_folder(run_id))
    last = bytes_of(run.path / "last")
    assert last == bytes_of(folder / "straight" / "last")
    ids = [row.id for row in studio.training_rows("mine")[0]]
    assert [row.id for row in run.rows(studio._workspace.snapshots).train] == ids
    # As a kill between the checkpoint of step 8 and the end would leave it.
    shutil.rmtree(run.path / "checkpoint-10")
    values = json.loads((run.path / "run.json").read_text()) | {"status": "running", "process": {}}
    (run.path / "run.json").write_text(json.dumps(values))
    assert [dead.id for dead in mark_interrupted(studio._workspace.checkpoints)] == [run_id]
    studio.resume_run(run_id)
    wait_for_training()
    assert_same(run.path, folder / "straight")
    studio.close()


def wait_for_training() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("work "):
            thread.join(600)


def test_the_page_begins_a_run_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    studio = Studio(Workspace(tmp_path), base=BaseWish(str(folder / "base"), dtype="fp32"))
    studio.load_base()
    shutil.copytree(folder / "straight", studio._workspace.run_folder("straight"))
    studio.resident(wait=True)
    for split in ("train", "dev"):
        studio.import_file(folder / f"{split}.jsonl", "mine", split)
    begin = Beginning(studio)
    request = SimpleNamespace(cookies={}, headers={})
    assert "straight@last" in [name for _, name in begin.on_look(request, "")["choices"]]
    form = Form("train", LoraSettings(), TrainingSettings())
    form.place_rest()
    fields = begin.on_choice(form, "straight@last")
    assert {"r": 4, "lora_alpha": 16}.items() <= studio.start_values("straight@last").items()
    assert [field["interactive"] for field in fields] == [False] * 5 + [True] * 2
    short = TrainingSettings(num_train_epochs=1, per_device_train_batch_size=4, max_source_length=60)
    with pytest.raises(StudioError) as caught:
        studio.start_run("mine", LoraSettings(r=8), short, from_adapter="straight@last")
    assert [found.params["field"] for found in caught.value.params["findings"]] == ["r"]
    run_id = studio.start_run("mine", LoraSettings(r=4), short, from_adapter="straight@last").id
    wait_for_training()
    run = studio.run(run_id)
    assert (run.status, run.from_adapter) == ("finished", str(studio._workspace.run_folder("straight") / "last"))
    assert studio.metrics(run_id)[0][0].step == 0
    assert f"--from-adapter {run.from_adapter}" in studio.command_line("mine", run.lora, short, "straight@last")
    studio.close()


def test_the_base_may_lie_elsewhere_by_now(folder: Path, broken: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    moved = shutil.copytree(folder / "base", tmp_path / "moved")
    record = json.loads((broken / "run.json").read_text())
    assert record["base"]["source"] == str(folder / "base")
    record["base"]["source"] = str(tmp_path / "gone")
    (broken / "run.json").write_text(json.dumps(record))
    command = ["train", "--resume", "--output-dir", str(broken)]
    assert cli.main(command) == 2
    assert str(tmp_path / "gone") in (told := capsys.readouterr().err)
    assert "--base" in told
    assert cli.main([*command, "--base", "embedded"]) == 2
    assert str(tmp_path / "gone") in (told := capsys.readouterr().err)
    assert "embedded" in told
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, "--base", "moved/"]) == 0
    assert_same(broken, folder / "straight")
    assert json.loads((broken / "run.json").read_text())["base"]["source"] == str(moved)


def test_a_run_whose_checkpoints_are_gone_says_that_it_begins_anew(folder: Path, broken: Path, capsys) -> None:
    (broken / "checkpoint-4" / "optimizer.pt").unlink()
    assert begins_anew(RunFolder(broken)).params["file"] == "optimizer.pt"
    for checkpoint in broken.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert cli.main(["train", "--resume", "--output-dir", str(broken)]) == 0
    told = capsys.readouterr().err
    assert "reached step 6" in told
    assert "begins anew at step 1" in told
    assert_same(broken, folder / "straight")


def test_a_new_run_from_a_finished_adapter(folder: Path, tmp_path: Path, capsys) -> None:
    adapter = str(folder / "straight" / "last")
    more = ["--num-train-epochs", "1", "--from-adapter", adapter]
    assert train(folder, "more", *more, "--lora-rank", "8") == 2
    assert "--lora-rank: 8" in capsys.readouterr().err
    assert not (folder / "more" / "run.json").exists()
    assert train(folder, "more", *more) == 0
    ended = json.loads((folder / "straight" / "metrics.jsonl").read_text().splitlines()[-2])["values"]["loss"]
    assert f"dev loss {ended:.5f} at step 0" in capsys.readouterr().out
    assert f"from_adapter: {adapter}\n" in (folder / "more" / "run.yaml").read_text()
    assert train(folder, "straight", *more, "--overwrite-output-dir") == 2
    assert Path(adapter).is_dir()
