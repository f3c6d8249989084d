"""The command line from end to end on a tiny base: train, evaluate, compare, import and export."""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from glmstudio import cli
from glmstudio.commands.flags import add_settings, chosen, normalised
from glmstudio.data import formats
from glmstudio.inference.compare import Answer, Comparison
from glmstudio.settings import TrainingSettings
from glmstudio.training import estimate
from tests.tiny_base import rows, tiny_model, tiny_tokenizer
from tests.train.runs import bytes_of

SHOT = Comparison((Answer("__base__"), Answer("tuned")), prompt_tokens=1, cut_prompt=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    for split, count, first in (("train", 24, 0), ("dev", 6, 300)):
        formats.write(folder / f"{split}.jsonl", rows(count, split=split, first=first), "context-target")
    code = cli.main(
        [
            "train", "--base", str(folder / "base"), "--dtype", "fp32",
            "--train_path", str(folder / "train.jsonl"), "--dev_path", str(folder / "dev.jsonl"),
            "--lora_rank", "4", "--batch_size", "4", "--num_train_epochs", "2", "--save_freq", "3",
            "--learning_rate", "1e-2", "--logging_steps", "2", "--max_source_seq_len", "60",
            "--max_target_seq_len", "40", "--save_dir", str(folder / "run"), "--img_log_dir", str(folder / "log"),
            "--img_log_name", "loss curve", "--device", "cpu",
        ]
    )  # fmt: skip
    assert code == 0
    return folder


def test_a_run_with_the_older_flags_leaves_everything_that_is_promised(folder):
    run = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    assert (run["status"], run["step"], run["total"]) == ("finished", 12, 12)
    assert run["settings"]["per_device_train_batch_size"] == 4
    assert run["settings"]["max_source_length"] == 60
    assert run["lora"]["r"] == 4
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == [2, 4, 6, 8, 10, 12]
    assert all({"loss", "tokens_per_second"} <= set(record["values"]) for record in trained)
    for name in ("best", "last", "checkpoint-6", "checkpoint-12"):
        assert (folder / "run" / name / "adapter_model.safetensors").is_file()
    assert (folder / "log" / "loss curve.png").read_bytes().startswith(b"\x89PNG")


def test_run_yaml_gives_the_same_run(folder, capsys):
    config = folder / "run" / "run.yaml"
    assert cli.main(["train", "--config", str(config), "--output-dir", str(folder / "again")]) == 0
    first, again = (json.loads((folder / name / "run.json").read_text(encoding="utf-8")) for name in ("run", "again"))
    for name in ("settings", "lora", "base", "snapshot_id", "best_eval_loss"):
        assert again[name] == first[name]
    for name in ("best", "last"):
        assert bytes_of(folder / "again" / name) == bytes_of(folder / "run" / name)
    assert (folder / "again" / "run.yaml").read_bytes() == config.read_bytes()
    assert "no longer" not in capsys.readouterr().err


def test_what_the_memory_is_not_enough_for_is_refused(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "free_memory", lambda device: -(2**30))
    words = ["train", "--config", str(folder / "run" / "run.yaml"), "--output-dir", str(tmp_path / "run")]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "error: The run needs" in said
    assert "choose a smaller base" in said
    assert not (tmp_path / "run").exists()


def test_a_run_trains_as_its_estimate_chose(folder, tmp_path, capsys, monkeypatch):
    planned = estimate.planned

    def tight(*asked):
        findings, found = planned(*asked)
        return findings, dataclasses.replace(found, token_budget=90, gradient_checkpointing=True, seconds=61)

    monkeypatch.setattr(estimate, "planned", tight)
    words = ["train", "--config", str(folder / "run" / "run.yaml"), "--output-dir", str(tmp_path / "run")]
    assert cli.main([*words, "--num-train-epochs", "0.2"]) == 0
    assert "estimate: " in (said := capsys.readouterr().out)
    assert "00:01:01" in said
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (run["token_budget"], run["checkpointing"], run["status"]) == (90, True, "finished")


def test_other_rows_than_those_of_the_file_are_told(folder, tmp_path, capsys):
    text = (folder / "run" / "run.yaml").read_text(encoding="utf-8").replace(str(folder / "dev.jsonl"), "")
    (tmp_path / "own.yaml").write_text(text.replace("num_train_epochs: 2.0", "num_train_epochs: 0.1"), encoding="utf-8")
    words = ["train", "--config", str(tmp_path / "own.yaml"), "--root", str(tmp_path)]
    assert cli.main(words) == 0
    assert "no longer" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "run-0001" / "last" / "adapter_model.safetensors").is_file()
    (tmp_path / "own.yaml").write_text(text.replace("seed: 42", "sed: 42"), encoding="utf-8")
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert str(tmp_path / "own.yaml") in told
    assert "`seed`" in told
    assert not (tmp_path / "checkpoints" / "run-0002").exists()


def test_a_second_run_in_the_same_folder_is_refused_with_the_next_step(folder, capsys):
    code = cli.main(["train", "--base", str(folder / "base"), "--train-path", str(folder / "train.jsonl"),
                     "--output-dir", str(folder / "run")])  # fmt: skip
    assert code == 2
    assert "--overwrite-output-dir" in capsys.readouterr().err


def test_evaluate_writes_totals_and_whole_answers(folder, capsys):
    output = folder / "scores" / "o.json"
    code = cli.main(["evaluate", "--base", str(folder / "base"), "--adapter", str(folder / "run" / "best"),
                     "--dev-path", str(folder / "dev.jsonl"), "--output", str(output),
                     "--max-new-tokens", "12"])  # fmt: skip
    assert code == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert len(result["rows"]) == 6
    assert set(result["rows"][0]) == {"instruction", "input", "target", "base", "tuned", "cut"}
    for name in ("base", "tuned"):
        assert {"json_valid", "triple_precision", "triple_recall", "triple_f1", "exact_match"} <= set(result[name])
    assert "exact_match" in capsys.readouterr().out


def test_compare_prints_one_json_object(folder, capsys):
    code = cli.main(["compare", "--base", str(folder / "base"), "--adapter", str(folder / "run" / "last"),
                     "--instruction", "i", "--input", "x", "--max-new-tokens", "5", "--json"])  # fmt: skip
    assert code == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["text"] for row in answer["rows"]] == [answer["base"], answer["tuned"]]


def test_the_style_that_an_adapter_records_is_the_one_it_is_asked_in(folder, tmp_path, capsys, monkeypatch):
    """A flag that says otherwise is told and changes nothing; without a record the flag decides."""
    asked = []
    monkeypatch.setattr("glmstudio.inference.compare.compare", lambda *_, **how: asked.append(how) or [SHOT])
    adapter = tmp_path / "adapter"
    shutil.copytree(folder / "run" / "last", adapter)
    words = ["compare", "--base", str(folder / "base"), "--instruction", "i"]
    for more in (["--adapter", str(adapter)], ["--adapter", str(adapter), "--prompt-style", "chat"]):
        assert cli.main(words + more) == 0
    assert [(how["style"], how["max_source_length"]) for how in asked] == [("instruction", 60)] * 2
    assert capsys.readouterr().err.count("`instruction`") == 1
    (adapter / "glmstudio.json").unlink()
    for more in (["--adapter", str(adapter), "--prompt-style", "chat"], ["--prompt-style", "chat"], []):
        assert cli.main(words + more) == 0
    assert [how["style"] for how in asked[2:]] == ["chat", "chat", "instruction"]
    assert "`instruction`" not in capsys.readouterr().err


def test_rows_come_in_and_go_out_unchanged(folder, tmp_path, capsys):
    source, target = folder / "train.jsonl", tmp_path / "out.jsonl"
    assert cli.main(["import", str(source), "--dataset", "mine", "--root", str(tmp_path)]) == 0
    assert cli.main(["export", str(target), "--dataset", "mine", "--root", str(tmp_path)]) == 0
    assert target.read_bytes() == source.read_bytes()
    assert "24 rows" in capsys.readouterr().out


def test_bad_lines_are_told_with_file_number_and_reason(folder, tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text((folder / "train.jsonl").read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    assert cli.main(["import", str(path), "--dataset", "mine", "--root", str(tmp_path)]) == 0
    assert f"{path}:25: " in capsys.readouterr().err


def test_everything_wrong_with_the_settings_is_told_at_once(folder, capsys):
    code = cli.main(["train", "--base", str(folder / "base"), "--train-path", str(folder / "train.jsonl"),
                     "--output-dir", str(folder / "other"), "--learning-rate", "7",
                     "--lora-rank", "0"])  # fmt: skip
    told = capsys.readouterr().err
    assert code == 2
    assert "7" in told
    assert told.count("error: ") == 2
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "auto"),
        (["--gradient-checkpointing"], "on"),
        (["--gradient_checkpointing", "--seed", "7"], "on"),
        (["--gradient-checkpointing", "True"], "on"),
        (["--gradient-checkpointing", "off"], "off"),
        (["--gradient-checkpointing=false"], "off"),
    ],
)
def test_gradient_checkpointing_is_still_a_bare_flag(words: list[str], expected: str) -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, TrainingSettings)
    assert chosen(parser.parse_args(normalised(words)), TrainingSettings()).gradient_checkpointing == expected
