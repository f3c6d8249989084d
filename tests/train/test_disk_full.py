"""A disk that fills: the run ends and says why, what was whole stays whole, and with room again it goes on.

No error here is made up: a small disk is filled where one can be mounted, and everywhere files may not grow.
"""

import dataclasses
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EFBIG, ENOSPC
from pathlib import Path

import pytest

from glmstudio import cli
from glmstudio.errors import StudioError
from glmstudio.training.batches import render_rows
from glmstudio.training.disk_space import has_room, is_disk_full
from glmstudio.training.metrics import MetricWriter, read_from
from glmstudio.training.resume import reopen
from glmstudio.training.runs import RunFolder
from glmstudio.training.token_cache import TokenCache
from tests.tiny_base import tiny_base
from tests.train.runs import DROPOUT, FAST, TRAIN, assert_same, bytes_of, resume_in, run_in

OFTEN = dataclasses.replace(FAST, save_steps=2, eval_steps=3, save_total_limit=99)
KIB = 1024


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can be written behind so many bytes: the system answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only the system's administrator mounts disks")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    filler = place / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(place).free - leave))
    return filler


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    run_in(folder, OFTEN, lora=DROPOUT)
    return folder


def full_at(step: int, happens: Callable[[], None]) -> Callable:
    """Calls it once, behind that step."""
    left = [happens]

    def follow(progress) -> None:
        if progress.step == step and left:
            left.pop()()

    return follow


def assert_ended_well(folder: Path, straight: Path) -> None:
    run = RunFolder(folder).read()
    assert (run.status, run.error) == ("failed", {"code": "disk-full", "params": {"folder": str(folder)}})
    assert run.finished_at >= run.started_at
    assert "Traceback" in RunFolder(folder).log_path.read_text()
    assert {"best", "checkpoint-4", "checkpoint-2"} <= set(RunFolder(folder).checkpoints())
    assert bytes_of(folder / "checkpoint-4") == bytes_of(straight / "checkpoint-4")
    assert not (folder / ".writing").exists()


# What fails depends on what is left: the next record or run.json, an adapter, the optimizer's state, random numbers.
@pytest.mark.parametrize("left", [0, 24, 64])
def test_on_a_full_disk_a_run_ends_and_with_room_it_goes_on(small_disk: Path, straight: Path, left: int) -> None:
    folder = small_disk / "run"
    with pytest.raises(StudioError, match="disk-full"):
        run_in(folder, OFTEN, lora=DROPOUT, on_progress=full_at(5, lambda: fill(small_disk, left * KIB)))
    assert_ended_well(folder, straight)
    (small_disk / "filler").unlink()
    assert resume_in(folder).status == "finished"
    assert_same(folder, straight)


def test_a_disk_that_is_still_full_is_told_where_a_run_would_go_on(small_disk: Path, straight: Path) -> None:
    shutil.copytree(straight / "checkpoint-4", small_disk / "run" / "checkpoint-4")
    shutil.copy(straight / "metrics.jsonl", small_disk / "run")
    shutil.copy(straight / "run.json", small_disk / "run")
    RunFolder(small_disk / "run").update(status="failed")
    filler = fill(small_disk, 0)
    with pytest.raises(StudioError, match="disk-full-start"):
        reopen(RunFolder(small_disk / "run"), tiny_base())
    assert not has_room(small_disk, KIB)
    filler.unlink()
    assert has_room(small_disk, KIB)
    resume_in(small_disk / "run")
    assert_same(small_disk / "run", straight, ["last", "checkpoint-12"])


def test_a_record_that_does_not_fit_is_an_error_and_the_others_are_whole(small_disk: Path) -> None:
    fill(small_disk, 8 * KIB)
    writer, written = MetricWriter(small_disk / "metrics.jsonl"), []

    def write_on() -> None:
        for step in range(1000):
            writer.write("train", step=step, epoch=0.0, loss=1.0)
            written.append(step)

    with pytest.raises(OSError, match="No space") as told:
        write_on()
    writer.close()
    assert told.value.errno == ENOSPC
    assert [record.step for record in read_from(small_disk / "metrics.jsonl")[0]] == written
    assert len(written) > 30


@pytest.mark.parametrize("limit", [4, 24])
def test_where_files_may_not_grow_a_run_ends_and_goes_on(tmp_path: Path, straight: Path, limit: int) -> None:
    """An adapter has 15 KiB, its optimizer's state 36."""
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(StudioError, match="disk-full"):
            run_in(
                folder, OFTEN, lora=DROPOUT,
                on_progress=full_at(5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit * KIB, hard))),
            )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_ended_well(folder, straight)
    resume_in(folder)
    assert_same(folder, straight)


def test_token_ids_that_cannot_be_kept_are_made_again(tmp_path: Path) -> None:
    base = tiny_base()
    with files_end_at(KIB):
        rows = TokenCache(tmp_path, base, FAST).rows("train", TRAIN)
    assert [*rows] == render_rows(base, TRAIN, FAST)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_run_that_cannot_even_begin_says_so(tmp_path: Path, capsys) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"instruction": "Say", "input": "a", "output": "b"}\n' * 8)
    with files_end_at(256):
        code = cli.main(["train", "--train-path", str(data), "--output-dir", str(tmp_path / "run")])
    assert code != 0
    assert "The disk is full" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_errors_that_have_nothing_to_do_with_the_disk() -> None:
    full = OSError(EFBIG, "File too large")
    wrapped = RuntimeError("basic_ios::clear: iostream error")
    wrapped.__context__ = full
    assert is_disk_full(full)
    assert is_disk_full(wrapped)
    assert not is_disk_full(OSError(13, "Permission denied"))
    assert not is_disk_full(RuntimeError("No space left on device"))
