"""`run.yaml` and the command: what is written is read back, and what is wrong in a file is told by line and key."""

import argparse
import dataclasses
import math
import shlex
from pathlib import Path

import pytest

from glmstudio import cli
from glmstudio.commands.config import with_config
from glmstudio.commands.flags import chosen, normalised
from glmstudio.commands.together import all_processes
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings, recommended
from glmstudio.studio import Studio
from glmstudio.studio.base_slot import BaseWish
from glmstudio.training.ranks import Ranks
from glmstudio.training.run_config import as_yaml, from_yaml, launcher
from glmstudio.ui.language import LANGUAGES, error_text, finding_text
from glmstudio.workspace import Workspace

ASKED = {"base": "embedded", "device": "auto", "dtype": "auto", "quantization": "none", "dataset": "数据 1"}


def other(value: object, item: dataclasses.Field) -> object:
    """Another value than the usual one of a field, inside its bounds."""
    bounds = item.metadata
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return ("q_proj", "v_proj")
    if isinstance(value, str):
        return next(choice for choice in reversed(bounds["choices"]) if choice != value)
    low, high = bounds["low"], bounds["high"]
    return type(value)(min(high, max(low, value * 2 + (1 if isinstance(value, int) else math.pi / 1e5))))


def others(settings: object, *but: str) -> object:
    changed = {
        item.name: other(getattr(settings, item.name), item)
        for item in dataclasses.fields(settings)
        if item.name not in but
    }
    assert all(value != getattr(settings, name) for name, value in changed.items())
    return dataclasses.replace(settings, **changed)


ALL_CHANGED = (others(LoraSettings()), others(TrainingSettings()))


def parsed(words: list[str]) -> argparse.Namespace:
    return with_config(cli.build_parser().parse_args(normalised(words)))


def settings_of(args: argparse.Namespace) -> tuple[LoraSettings, TrainingSettings]:
    method = getattr(args, "method", "lora")
    usual = recommended(demonstration=args.base in (None, "embedded"), method=method)
    return chosen(args, LoraSettings()), chosen(args, usual)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("settings", [(LoraSettings(), TrainingSettings()), ALL_CHANGED], ids=["usual", "changed"])
def test_every_setting_comes_back_from_the_file(settings, tmp_path: Path) -> None:
    path = write(tmp_path, as_yaml(ASKED, *settings))
    assert from_yaml(path) == {**ASKED, **dataclasses.asdict(settings[0]), **dataclasses.asdict(settings[1])}
    args = parsed(["train", "--config", str(path)])
    assert settings_of(args) == settings
    assert (args.base, args.dataset, args.root) == ("embedded", "数据 1", Workspace(args.root).root)


@pytest.mark.parametrize("wish", [BaseWish(), BaseWish("some/model", "cpu", "fp32", "8bit")], ids=["usual", "asked"])
@pytest.mark.parametrize("changed", [False, True])
def test_command_and_file_of_the_page_are_the_run_of_its_form(wish, changed, tmp_path: Path) -> None:
    studio = Studio(Workspace(tmp_path), base=wish)
    for method in ("lora", "ptuning"):
        form = (LoraSettings(), studio.default_settings(method=method))
        if changed:
            form = others(form[0]), others(form[1], "method")
        command = shlex.split(studio.command_line("my rows", *form))
        processes = form[1].num_processes
        assert command[: command.index("-m")] == launcher(processes)
        path = write(tmp_path, studio.run_yaml("my rows", *form))
        for words in (command[command.index("train") :], ["train", "--config", str(path)]):
            args = parsed(words)
            lora, settings = settings_of(args)
            count = all_processes(settings, Ranks(0, processes))
            assert (lora, dataclasses.replace(settings, num_processes=count)) == form
            assert (args.dataset, args.root) == ("my rows", tmp_path)
            asked = BaseWish(args.base, args.device or "auto", args.dtype or "auto", args.quantization or "none")
            assert asked == wish
    studio.close()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "base: embedded\ndataset: mine\nr: 4\nlearning_rate: 2e-4\nsnapshot_id: abc\nseed: 7\n")
    args = parsed(["train", "--config", str(path), "--seed", "8", "--train_path", "x.jsonl", "--root", str(tmp_path)])
    assert (args.seed, args.r, args.learning_rate) == (8, 4, 2e-4)
    assert (args.dataset, args.train_path, args.snapshot_id) == (None, Path("x.jsonl"), "")
    assert args.output_dir == tmp_path / "checkpoints" / "run-0001"
    assert parsed(["train", "--config", str(path)]).snapshot_id == "abc"


def test_names_and_words_as_people_write_them(tmp_path: Path) -> None:
    text = (
        "lora-rank: 16\ntarget_modules: query_key_value, dense\nprefix-projection: True\n"
        "num_train_epochs: 3\ndev_path:\nbase: 1e5\ngradient_checkpointing: true\n"
    )
    assert from_yaml(write(tmp_path, text)) == {
        "r": 16, "target_modules": ("query_key_value", "dense"), "prefix_projection": True, "num_train_epochs": 3.0,
        "base": "1e5", "gradient_checkpointing": "on",
    }  # fmt: skip


def test_everything_wrong_is_told_at_once_by_line_and_key(tmp_path: Path) -> None:
    text = (
        "learning_rat: 1\nzzz: 1\nr: 8.5\nwarmup_ratio: much\nprefix_projection: maybe\nbase: [a]\n"
        "target_modules: {a: b}\nseed: -1\nlr_scheduler_type: cubic\ndtype: int3\nlora_rank: 9\nr: 4\n"
        "max_grad_norm: much\n"
    )
    with pytest.raises(StudioError, match="config-refused") as caught:
        from_yaml(write(tmp_path, text))
    found = [(item.params["line"], item.code) for item in caught.value.params["findings"]]
    assert found == [
        (1, "config-near"), (2, "config-unknown"), (3, "config-whole"), (4, "config-number"), (5, "config-switch"),
        (6, "config-text"), (7, "config-list"), (8, "config-bounds"), (9, "config-choice"), (10, "config-choice"),
        (12, "config-twice"), (13, "config-number"),
    ]  # fmt: skip
    for lang in LANGUAGES:
        told = [finding_text(item, lang) for item in caught.value.params["findings"]]
        assert "learning_rate" in told[0]
        assert "2147483647" in told[7]
        assert "linear, cosine, constant" in told[8]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [("base: a\n\tr: [\n", "config-broken", 2), ("- a\n- b\n", "config-shape", 0), ("", "config-shape", 0)],
)
def test_a_file_that_is_no_mapping_is_a_sentence(text: str, code: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=code) as caught:
        from_yaml(write(tmp_path, text))
    assert caught.value.params.get("line", 0) == line
    assert "run.yaml" in error_text(caught.value, "en")


def test_nothing_is_built_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'base: !!python/object/apply:os.system ["touch gone"]\n')
    with pytest.raises(StudioError, match="config-refused"):
        from_yaml(path)
    with pytest.raises(StudioError, match="config-unreadable"):
        from_yaml(tmp_path / "none.yaml")


def test_going_on_needs_a_folder() -> None:
    with pytest.raises(StudioError, match="output-dir-missing"):
        parsed(["train", "--resume"])


def test_a_file_of_several_processes_is_no_run_of_one() -> None:
    with pytest.raises(StudioError, match="launch-processes"):
        all_processes(TrainingSettings(num_processes=2), Ranks())
    assert all_processes(TrainingSettings(), Ranks(1, 4)) == 4
