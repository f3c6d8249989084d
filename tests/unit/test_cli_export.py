"""`merge`, `export-adapter` and `gguf` on the command line: what they write, what they print."""

import argparse
import json

import pytest

from glmstudio.commands.export import add_export_adapter, add_gguf, add_merge
from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import about_adapter, dev_prompts
from tests.tiny_families import native_folder
from tests.unit.export_cases import random_adapter


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A base and a run's adapter, the run's frozen rows beside it."""
    root = tmp_path_factory.mktemp("cli")
    base = native_folder("qwen2", root / "base")
    best = random_adapter(base, root / "run" / "best", style="instruction")
    dev = [Example(f"Name {number}.", "Rome") for number in range(5)]
    frozen = snapshot.freeze([Example("a", "b", "c")], dev, root / "run" / "snapshots")
    record = json.loads((best / "glmstudio.json").read_text()) | {"snapshot_id": frozen.id}
    (best / "glmstudio.json").write_text(json.dumps(record))
    return base, best


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for add in (add_merge, add_export_adapter, add_gguf):
        add(commands)
    args = parser.parse_args([str(word) for word in words])
    return args.command(args)


def test_merge_prints_how_it_was_checked(tuned, tmp_path, capsys):
    base, best = tuned
    assert run("merge", "--base", base, "--adapter", best, "--output-dir", tmp_path / "m", "--device", "cpu") == 0
    shown = capsys.readouterr()
    assert "Merge check on 3 prompts in float32: logits differ by" in shown.out
    assert "same first choice 100.00%" in shown.out
    assert f"{tmp_path / 'm'}: 0.13 MB" in shown.out
    assert shown.err.count("check 100 %") == 1
    check = json.loads((tmp_path / "m" / "merge_check.json").read_text())
    assert (check["passed"], check["prompts"]) == (True, 3)


def test_a_file_of_rows_gives_the_prompts(tuned, tmp_path, capsys):
    base, best = tuned
    rows = [{"instruction": "Name it.", "input": "Oslo", "output": "x"}] * 2
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "scores.json").write_text(json.dumps({"base": {"exact": 0.5}, "tuned": {"exact": 0.75}, "rows": [1]}))
    run(
        "merge", "--base", base, "--adapter", best, "--output-dir", tmp_path / "m", "--device", "cpu",
        "--dev-path", tmp_path / "dev.jsonl", "--dtype", "bf16", "--scores", tmp_path / "scores.json",
    )  # fmt: skip
    assert "Merge check on 2 prompts in bfloat16" in capsys.readouterr().out
    assert "| exact | 0.5000 | 0.7500 |" in (tmp_path / "m" / "README.md").read_text()


def test_the_runs_own_dev_rows_are_found(tuned):
    about = about_adapter(tuned[1])
    assert dev_prompts(tuned[1], about) == [("Name 0.", "Rome"), ("Name 1.", "Rome"), ("Name 2.", "Rome")]


def test_export_adapter_writes_a_folder_to_give_away(tuned, tmp_path, capsys):
    assert run("export-adapter", "--adapter", tuned[1], "--output-dir", tmp_path / "gift", "--language", "zh") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'gift'}: 0.02 MB")
    assert "## 提示词" in (tmp_path / "gift" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "code"), [("no JSON", "file-missing"), ('{"rows": []}', "scores-unreadable")])
def test_scores_that_cannot_be_read_are_named(tuned, tmp_path, text, code):
    scores = tmp_path / "scores.json"
    scores.write_text(text)
    with pytest.raises(StudioError) as error:
        run("export-adapter", "--adapter", tuned[1], "--output-dir", tmp_path / "gift", "--scores", scores)
    assert error.value.code == code


def test_gguf_without_a_converter_says_where_to_get_one(tuned, tmp_path, monkeypatch):
    monkeypatch.delenv("GLMSTUDIO_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudioError) as error:
        run("gguf", "--model", tuned[0], "--output", tmp_path / "m.gguf")
    assert error.value.code == "gguf-missing"
    assert list(tmp_path.iterdir()) == []
