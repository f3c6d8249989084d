"""Two processes train one run: equal weights, the numbers of one process with the doubled batch, one folder."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.training.runs import RunFolder
from glmstudio.workspace import Workspace
from tests.tiny_base import tiny_model, tiny_tokenizer
from tests.train.runs import TRAIN, UNEVEN, assert_same, bytes_of, records, run_in, weights

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    ended = started("tests.train.two_processes", str(folder))
    assert ended.returncode == 0, ended.stderr
    return folder


def started(module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a module, at their end."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    return subprocess.run(
        [*torchrun, module, *words], cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip


def files(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if "snapshots" not in path.parts}


@pytest.fixture(scope="module")
def told(place: Path) -> list[dict[str, Any]]:
    return [json.loads((place / f"{index}.json").read_text()) for index in range(2)]


def test_both_end_with_equal_weights(told: list[dict[str, Any]]) -> None:
    assert told[0] == told[1]
    assert len({told[0]["hashes"][name] for name in ("plain", "straight", "failed")}) == 3


def test_the_run_is_that_of_one_process_with_the_doubled_batch(place: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    run_in(alone, dataclasses.replace(UNEVEN, per_device_train_batch_size=4))
    both = place / "plain"
    for kind, name in (("train", "loss"), ("train", "grad_norm"), ("train", "learning_rate"), ("eval", "loss")):
        expected = [(record.step, record.values[name]) for record in records(alone, kind)]
        found = [(record.step, record.values[name]) for record in records(both, kind)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=1e-6), (kind, name)
    for name, weight in weights(alone / "last").items():
        assert (weights(both / "last")[name] - weight).abs().max() < 1e-5, name
    names, theirs = files(alone), files(both)
    random = {name for name in names if name.endswith("rng_state.pth")}
    assert theirs - {name for name in theirs if "rng_state_" in name} == names - random
    assert len(theirs) == len(names) + len(random)


def test_a_run_that_one_of_them_was_asked_to_stop_goes_on_bit_for_bit(place: Path, told: list[dict[str, Any]]) -> None:
    assert told[0]["hashes"]["stopped"] == told[0]["hashes"]["straight"]
    assert told[0]["stopped at"] != told[0]["hashes"]["straight"]
    assert_same(place / "stopped", place / "straight", ["last", "best", "checkpoint-8"])
    # Dropout is each process's own, or half the rows would see the same noise: their random numbers differ.
    states = [(place / "straight" / "checkpoint-8" / f"rng_state_{index}.pth").read_bytes() for index in range(2)]
    assert states[0] != states[1]
    assert bytes_of(place / "straight" / "last") != bytes_of(place / "plain" / "last")


def test_a_base_in_parts_trains_as_a_whole_one(place: Path, told: list[dict[str, Any]]) -> None:
    assert bytes_of(place / "sharded" / "last") == bytes_of(place / "plain" / "last")
    for kind in ("train", "eval"):
        expected = [(record.step, record.values["loss"]) for record in records(place / "plain", kind)]
        assert [(record.step, record.values["loss"]) for record in records(place / "sharded", kind)] == expected
    (first, whole), (second, same) = (facts["kept"] for facts in told)
    assert first + second == whole == same
    assert first == pytest.approx(whole / 2, rel=0.01)
    assert told[0]["sharded stopped at"] != told[0]["hashes"]["sharded"]
    assert_same(place / "sharded stopped", place / "sharded", ["last", "best", "checkpoint-8"])


def test_accelerates_fsdp_cuts_the_base_on_the_command_line(place: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "rows.jsonl", tmp_path / "run"
    file.write_text("\n".join(json.dumps({"instruction": row.instruction, "input": row.input, "output": row.target})
                              for row in TRAIN))  # fmt: skip
    words = ["train", "--base", str(place / "base"), "--device", "cpu", "--dtype", "fp32", "--train-path", str(file)]
    ended = started(
        "glmstudio", *words, "--num-train-epochs", "1", "--output-dir", str(run), ACCELERATE_USE_FSDP="true"
    )
    assert ended.returncode == 0, ended.stderr
    facts = RunFolder(run).read()
    assert (facts.status, facts.step, facts.checkpointing) == ("finished", facts.total, True)
    assert "estimate" not in ended.stdout
    assert "what a part needs is not measured beforehand" in ended.stderr
    ended = started("glmstudio", *words, "--output-dir", str(run), ACCELERATE_USE_DEEPSPEED="true")
    assert ended.returncode != 0
    assert "choose FSDP" in ended.stderr
    ended = started("glmstudio", *words, "--quantization", "8bit", "--output-dir", str(run), ACCELERATE_USE_FSDP="true")
    assert ended.returncode != 0
    assert "this one is in 8bit" in ended.stderr


def test_what_fails_in_one_process_ends_both_and_is_recorded_once(place: Path, told: list[dict[str, Any]]) -> None:
    run = RunFolder(place / "failed").read()
    assert (run.status, run.error) == ("failed", {"code": "out-of-memory", "params": {"run": "failed"}})
    assert [facts["failure"][0] for facts in told] == ["out-of-memory"] * 2
    assert run.step < run.total == 8
    assert "MemoryError" in RunFolder(place / "failed").log_path.read_text()


def test_memory_that_runs_out_in_one_process_halves_the_budget_of_both(place: Path) -> None:
    run = RunFolder(place / "short").read()
    assert (run.status, run.step, run.halved_from) == ("finished", run.total, UNEVEN.token_budget)
    assert run.token_budget < UNEVEN.token_budget
    assert [record.values["code"] for record in records(place / "short", "event")].count("token-budget-halved") == 1
    for name, weight in weights(place / "plain" / "last").items():
        assert (weights(place / "short" / "last")[name] - weight).abs().max() < 1e-5, name


def test_the_page_starts_such_a_run_follows_and_stops_it(place: Path, tmp_path: Path) -> None:
    studio = Studio(Workspace(tmp_path), base=BaseWish(str(place / "base"), device="cpu", dtype="fp32"))
    studio.load_base()
    shutil.copytree(place / "long", studio._workspace.run_folder("long"))
    before = studio.run("long")
    studio.resident(wait=True)
    studio.resume_run("long")
    seen = wait_for(lambda: studio.progress("long"), lambda progress: progress is not None and progress.step > 4)
    assert (seen.phase, seen.total) == ("training", before.total)
    assert seen.tokens_per_second > 0
    assert studio.run("long").process != before.process != {}
    studio.stop_run("long")
    wait_for(studio.active_run, lambda run: run is None)
    run = studio.run("long")
    assert (run.status, run.error) == ("stopped", None)
    assert seen.step <= run.step < run.total
    told = [record.step for record in studio.metrics("long")[0] if record.kind == "train"]
    assert told == list(range(1, run.step + 1))
    assert studio.checkpoints("long")[:3] == ["best", "last", f"checkpoint-{run.step}"]
    assert f"stopped at step {run.step}/" in RunFolder(studio._workspace.run_folder("long")).log_path.read_text()
    studio.close()


def wait_for(look: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 600) -> Any:
    end = time.monotonic() + seconds
    while not enough(found := look()):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found
