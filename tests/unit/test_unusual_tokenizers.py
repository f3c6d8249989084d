"""Tokenizers without an end and chat templates with a clock, a die or a will of their own."""

import dataclasses
import json
from pathlib import Path

import pytest

from glmstudio.errors import StudioError
from glmstudio.models.chat_format import render_example
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.inspection.doctor import examine
from glmstudio.models.loading import load_base, load_tokenizer
from glmstudio.models.prompts.dialogue import dialogue_of
from glmstudio.models.prompts.prompt_text import prompt_text
from glmstudio.settings import LoraSettings, TrainingSettings
from tests.prompt_bases import TURNS, with_template
from tests.tiny_base import rows
from tests.tiny_families import native_folder
from tests.train.runs import checked

LLAMA = FAMILIES["llama"]
ASKED = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
DATED = "<|system|>Today {{ strftime_now('%d %b %Y %H:%M:%S') }}" + TURNS + ASKED
LENGTHS = {"max_source_length": 100, "max_target_length": 40}


def edit(path: Path, **values: object) -> None:
    kept = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not ...}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Llama whose tokenizer names neither end nor pad."""
    native_folder("llama", tmp_path)
    edit(tmp_path / "tokenizer_config.json", eos_token=..., pad_token=...)
    return tmp_path


def findings(base: object, style: str = "instruction") -> list[str]:
    return [item.code for item in checked(base, rows(4), [], LoraSettings(), TrainingSettings(prompt_style=style))]


def test_the_end_of_a_text_is_that_of_the_configs_where_the_tokenizer_names_none(folder: Path) -> None:
    base = load_base(folder, device="cpu", dtype="fp32")
    assert base.tokenizer.eos_token_id == 0
    row = render_example(base.tokenizer, base.family, "Name it.", "red", "red", **LENGTHS)
    assert row.ids[-1] == 0
    assert examine(folder, device="cpu").problems == []
    # The generation config's where the model's config has none; ids that the tokenizer does not know are passed over.
    edit(folder / "config.json", eos_token_id=None)
    edit(folder / "generation_config.json", eos_token_id=[99999, 4])
    assert load_tokenizer(folder).eos_token_id == 4
    (folder / "generation_config.json").write_text("{ broken", encoding="utf-8")
    assert load_tokenizer(folder).eos_token_id is None


def test_without_any_end_check_and_doctor_say_so(folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=None, pad_token_id=None)
    (folder / "generation_config.json").unlink()
    assert [error.code for error in examine(folder, device="cpu").problems] == ["no-end-token"]
    base = load_base(folder, device="cpu", dtype="fp32")
    assert "no-end-token" in findings(base)
    with pytest.raises(StudioError, match="no-end-token"):
        render_example(base.tokenizer, base.family, "Name it.", "red", "red", **LENGTHS)
    # A dialogue whose turns have an end of their own needs none.
    turns = dataclasses.replace(base, tokenizer=with_template("".join((TURNS, ASKED))))
    turns.tokenizer.eos_token = None
    assert "no-end-token" not in findings(turns, "chat")


def test_a_template_with_a_clock_always_writes_the_same_day(folder: Path) -> None:
    tokenizer = with_template(DATED)
    dialogue = dialogue_of(tokenizer, LLAMA)
    assert dialogue.dated
    assert "Today 26 Jul 2024 00:00:00" in tokenizer.decode(dialogue.prompts(["red"])[0])
    told = prompt_text(tokenizer, LLAMA, "chat")
    assert told.exact
    assert "26 Jul 2024" in told.text
    base = dataclasses.replace(load_base(folder, device="cpu", dtype="fp32"), tokenizer=tokenizer)
    assert "chat-template-dated" in findings(base, "chat")
    assert "chat-template-dated" not in findings(base, "instruction")
    assert not dialogue_of(with_template(TURNS + ASKED), LLAMA).dated


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ range(90000) | random }}" + TURNS + ASKED, "chat-template-varies"),
        ("<|user|>Hello<|assistant|>", "chat-template-rewrites"),
        (TURNS.replace("message.content", "message.content | upper") + ASKED, "chat-template-rewrites"),
        ("{% if not add_generation_prompt %}<|user|>{% else %}" + TURNS + "{% endif %}", "chat-template-rewrites"),
        ("{{ raise_exception('tools only') }}", "chat-template-unfit"),
    ],
)
def test_templates_that_cannot_ask_a_row_are_refused(template: str, code: str) -> None:
    with pytest.raises(StudioError, match=code):
        dialogue_of(with_template(template), LLAMA)
