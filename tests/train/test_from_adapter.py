"""Runs whose adapter starts as a finished one: from its dev loss on, with its settings, from a copy of their own."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_files import adapter_form
from glmstudio.models.resident import Resident
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.from_adapter import find_adapter, given, keep_start, read_start
from glmstudio.training.runs import RunFolder
from glmstudio.training.train import train
from tests.tiny_base import tiny_base
from tests.train.runs import DEV, DROPOUT, FAST, TRAIN, curve, records, resume_in, run_in

FIRST = {
    "lora": dataclasses.replace(FAST, num_train_epochs=1),
    "ptuning": dataclasses.replace(FAST, num_train_epochs=1, method="ptuning", pre_seq_len=3, learning_rate=0.5),
}


@pytest.fixture(scope="module", params=FIRST)
def first(request, tmp_path_factory) -> Path:
    """A finished run of each method."""
    folder = tmp_path_factory.mktemp(request.param) / "run-0001"
    run_in(folder, FIRST[request.param], lora=DROPOUT)
    return folder


def begin(folder: Path, adapter: Path, *, halt: int = -1) -> RunFolder:
    """A run from an adapter, stopped behind step `halt`."""
    resident, place = Resident(tiny_base()), RunFolder(folder)
    start = read_start(adapter, resident.base)
    lora, settings = start.applied(DROPOUT, dataclasses.replace(FAST, num_train_epochs=1, save_steps=2))
    place.create(
        snapshot_id="abc", dataset="tiny", base=resident.base, lora=lora, settings=settings,
        beside=lambda aside: keep_start(adapter, aside), from_adapter=str(adapter),
    )  # fmt: skip
    steps: list[int] = []
    train(
        resident, place, TRAIN, DEV, lora, settings,
        should_stop=lambda: halt in steps, on_progress=lambda progress: steps.append(progress.step),
    )  # fmt: skip
    return place


def test_a_run_begins_where_its_adapter_ended(first: Path, tmp_path: Path) -> None:
    place = begin(tmp_path / "second", first / "last")
    ended = records(first, "eval")[-1].values["loss"]
    began = records(place.path, "eval")[0]
    assert (began.step, began.values["loss"]) == (0, ended)
    run = place.read()
    assert run.best_eval_loss <= ended
    assert run.from_adapter == str(first / "last")
    assert run.settings.method == RunFolder(first).read().settings.method


def test_it_goes_on_as_if_nothing_had_been_also_without_the_adapter(first: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(first / "last", tmp_path / "adapter")
    straight = begin(tmp_path / "straight", adapter)
    for name, halt in (("anew", 1), ("broken", 3)):
        broken = begin(tmp_path / name, adapter, halt=halt)
        assert broken.read().status == "stopped"
    for checkpoint in (tmp_path / "anew").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    shutil.rmtree(adapter)
    for name in ("anew", "broken"):
        resume_in(tmp_path / name)
        assert curve(tmp_path / name) == curve(straight.path)
        for kept in ("best", "last"):
            assert weights_of(tmp_path / name / kept) == weights_of(straight.path / kept)


def weights_of(adapter: Path) -> bytes:
    (file,) = adapter_form(adapter).weights
    return file.read_bytes()


def test_what_contradicts_the_adapter_is_named(tmp_path: Path) -> None:
    run_in(tmp_path / "run-0001", FIRST["lora"], lora=LoraSettings(r=4))
    base = tiny_base()
    path = find_adapter("run-0001@best", tmp_path)
    assert path == tmp_path / "run-0001" / "best"
    start = read_start(path, base)
    wish = given(LoraSettings(r=4, lora_alpha=99), TrainingSettings(prompt_style="chat"))
    assert {found.params["field"] for found in start.findings(base, wish)} == {"lora_alpha", "prompt_style"}
    assert not start.findings(base, given(LoraSettings(r=9), names=["lora_alpha", "seed"]))
    lora, _ = start.applied(LoraSettings(), TrainingSettings())
    assert lora.r == 4
    assert lora.target_modules
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    with pytest.raises(StudioError) as caught:
        read_start(path, base)
    assert (caught.value.code, caught.value.params["setting"]) == ("from-adapter-setting", "use_rslora: True")
