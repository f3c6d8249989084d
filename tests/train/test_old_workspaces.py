"""Workspaces that earlier versions have left, moved to another place: opened, asked, judged, gone on with."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glmstudio import cli
from glmstudio.data.row_reader import Query
from glmstudio.studio import Studio
from tests.workspaces.make import CITIES, ODD, Place, idle, opened
from tests.workspaces.seen import answers, curve, seen

KEPT = sorted(path.parent for path in (Path(__file__).parents[1] / "workspaces").glob("*/seen.json"))


@dataclass(frozen=True)
class Old:
    """A copy, the program on it, and what the version that made it has found."""

    place: Place
    studio: Studio
    seen: dict[str, Any]
    then: dict[str, Any]


@pytest.fixture(scope="module", params=KEPT, ids=[path.name for path in KEPT])
def kept(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def old(kept: Path, tmp_path_factory) -> Iterator[Old]:
    place = Place(shutil.copytree(kept, tmp_path_factory.mktemp("moved") / "to é 2"))
    studio = opened(place)
    found, then = (json.loads((kept / f"{name}.json").read_text(encoding="utf-8")) for name in ("seen", "then"))
    yield Old(place, studio, found, then)
    studio.close()


def differing(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where the values differ; what a later version has beside them is no difference."""
    if isinstance(expected, dict) and isinstance(found, dict):
        missing = [f"{where}.{key}" for key in expected.keys() - found.keys()]
        return missing + [
            line
            for key in expected.keys() & found.keys()
            for line in differing(expected[key], found[key], f"{where}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            line
            for place, pair in enumerate(zip(expected, found, strict=True))
            for line in differing(*pair, f"{where}[{place}]")
        ]
    return [] if expected == found else [f"{where}: {expected!r} became {found!r}"]


def test_everything_is_found(old: Old):
    found = seen(old.studio, old.place.root)
    assert differing(old.seen, found) == []
    assert {run["status"] for run in found["runs"].values()} == {
        "finished", "failed", "interrupted", "stopped", "queued",
    }  # fmt: skip
    assert {(row["split"], row["status"]) for row in found["rows"]} == {
        (split, status) for split in ("train", "dev") for status in ("done", "draft", "discarded")
    }
    assert (found["damaged"], found["queue"]["held"]) == ([], 2)
    assert old.studio.former_database is None or old.studio.former_database.exists()


def test_the_adapters_answer_as_then(old: Old):
    said = answers(old.studio, list(old.then["answers"]), *old.then["asked"])
    assert differing(old.then["answers"], said) == []
    assert any(answer["base"] != answer["tuned"] for answer in said.values())


def test_a_save_a_deletion_and_an_import_can_be_undone(old: Old):
    studio = old.studio
    row = next(row for row in studio.page(Query(dataset=ODD)).rows if row.revision > 2)
    former = studio.undo_save(row.id, row.revision)
    assert (former.target, former.tags) == ('[{"subject": "九玄珠"}]', ("三元组", "a, b"))
    assert studio.undo_save(row.id).target == "[]"
    bin_ = [row["id"] for row in old.seen["deleted"]]
    assert studio.restore_examples(bin_) == len(bin_) > 1
    first = studio.imports()[-1]
    record, stay = studio.undo_import(first.id)
    # The dev row that a person has judged.
    assert (record.dataset, record.state, stay) == (CITIES, "undone", 1)


def test_the_queue_and_a_run_that_was_stopped_go_on(old: Old, kept: Path):
    studio, then = old.studio, old.then
    studio.start_queue()
    idle(studio)
    stopped = then["resumed"]["run"]
    assert studio.run(stopped).status == "stopped"
    studio.resume_run(stopped)
    idle(studio)
    assert {run.id: run.status for run in studio.runs()} == then["queue"]
    ended_as_then(kept, old.place.root / "checkpoints" / stopped)
    for kind in ("train", "eval"):
        assert_near(curve(studio, stopped)[kind], then["resumed"]["curve"][kind])


def test_the_commands_work_with_it(kept: Path, old: Old, tmp_path: Path, capsys):
    place = Place(shutil.copytree(kept, tmp_path / "again"))
    base = ["--base", place.base, "--device", "cpu"]
    mine, gift = place.files / "my run" / "best", place.files / "my adapter"
    for adapter in (mine, gift):
        command(
            "evaluate", *base, "--dtype", "fp32", "--adapter", adapter, "--dev-path", place.files / "dev.jsonl",
            "--output", tmp_path / "scores.json", "--max-new-tokens", "12",
        )  # fmt: skip
        scores, then = (
            json.loads(file.read_text()) for file in (tmp_path / "scores.json", place.files / "scores.json")
        )
        assert (scores["rows"], scores["tuned"]) == (then["rows"], then["tuned"])
    command("merge", *base, "--adapter", place.run(1) / "checkpoint-32", "--output-dir", tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "merge_check.json").read_text())["passed"]
    stopped = place.root / "checkpoints" / old.then["resumed"]["run"]
    command("train", *base, "--resume", "--root", place.root, "--output-dir", stopped)
    ended_as_then(kept, stopped)
    config = ["--config", place.files / "my run.yaml", "--root", place.root, *base]
    command("train", *config, "--num-train-epochs", "1", "--output-dir", tmp_path / "run")
    capsys.readouterr()
    command("imports", "--root", place.root)
    assert len(capsys.readouterr().out.splitlines()) == len(old.seen["imports"])


def command(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


def ended_as_then(kept: Path, folder: Path) -> None:
    assert_near(load_file(folder / "last" / "adapter_model.safetensors"), load_file(kept / "resumed.safetensors"))


def assert_near(found: Any, expected: Any) -> None:
    """Within what another processor's sums differ by, over the steps of such a run."""
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3, check_dtype=False)
