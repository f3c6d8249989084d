"""The commands `evaluate` and `compare`: what they write down of who answered, and what a stop leaves alone."""

import json
from pathlib import Path

import pytest

from glmstudio import cli
from glmstudio.evaluation import evaluate as evaluation
from glmstudio.models import loading
from tests.tiny_base import tiny_base
from tests.unit.test_resident import trained_adapter

ROWS = [{"instruction": "Name it.", "input": f"{number} Oslo is red.", "output": "red"} for number in range(3)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "load_base", lambda *_, **__: tiny_base())
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    adapter = trained_adapter(tmp_path / "run-0001" / "best", 1)
    (adapter / "glmstudio.json").write_text(
        json.dumps({"prompt_style": "instruction", "max_source_length": 60, "step": 7}), encoding="utf-8"
    )

    def run(command: str, *words: object) -> int:
        return cli.main([command, "--adapter", str(adapter), "--max-new-tokens", "4", *map(str, words)])

    return run


def test_both_say_which_content_answered(run, tmp_path, capsys):
    output = tmp_path / "scores.json"
    assert run("evaluate", "--dev-path", tmp_path / "dev.jsonl", "--output", output, "--temperature", "0.5") == 0
    scores = json.loads(output.read_text(encoding="utf-8"))
    by = scores["answered_by"]
    assert (by["step"], len(by["digest"]), by["base"]["source"]) == (7, 16, "tiny")
    assert scores["settings"]["temperature"] == 0.5
    capsys.readouterr()
    asked = ["--instruction", "Name it.", "--input", "Oslo is red."]
    assert run("compare", *asked) == 0
    assert f"tuned (step 7, {by['digest']})" in capsys.readouterr().out
    assert run("compare", *asked, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["digest"], said["step"]) == (by["digest"], 7)


def test_what_was_stopped_says_so_and_leaves_what_is_there(run, tmp_path, capsys, monkeypatch):
    output = tmp_path / "scores.json"
    asked = ["--dev-path", tmp_path / "dev.jsonl", "--output", output]
    assert run("evaluate", *asked) == 0
    whole = output.read_bytes()
    report = evaluation._report

    def stopped(examples, finished, columns):
        return report(examples, {place: finished[place] for place in (0, 1)}, columns)

    monkeypatch.setattr(evaluation, "_report", stopped)
    capsys.readouterr()
    assert run("evaluate", *asked) == 0
    assert "2 of 3 rows: stopped" in capsys.readouterr().out
    assert output.read_bytes() == whole
    assert json.loads((tmp_path / "scores-2-of-3.json").read_text(encoding="utf-8"))["cancelled"]
