"""Prompts and training rows as ids: the seed's own rows, cuts, the same prompt in training and in use."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from glmstudio.data.example import split_context
from glmstudio.errors import StudioError
from glmstudio.models.chat_format import Rendered, render_example, render_prompt
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_tokenizer
from glmstudio.settings import PROMPT_STYLES
from tests.prompt_bases import prompt_bases
from tests.scripted import FIRST_BYTE, SPECIAL, ByteTokenizer
from tests.unit.golden_cases import CHATGLM as GOLDEN
from tests.unit.golden_cases import official_tokenizer_folder

OFFICIAL = official_tokenizer_folder()
OPENING, END = [SPECIAL["[gMASK]"], SPECIAL["<sop>"]], SPECIAL["<eop>"]
TEXT_BYTES = len("Instruction: a\nInput: b\nAnswer: ")
FRAME = TEXT_BYTES - 2


class LeadingTokenizer(ByteTokenizer):
    """Special tokens lead a text, and in the manner of some tokenizers an end token closes it."""

    def __init__(self, *, closes: bool) -> None:
        self.closes = closes

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = super().encode(text, add_special_tokens)
        return [7, 8, *ids, *[END] * self.closes] if add_special_tokens else ids


def rendered(tokenizer: Any = None, family: Family = CHATGLM, target: str = "cd", source: int = 400, length: int = 300):
    return render_example(
        tokenizer or ByteTokenizer(), family, "a", "b", target, max_source_length=source, max_target_length=length
    )


def bytes_of(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def test_a_row_is_prompt_opening_target_end() -> None:
    row = rendered()
    assert row.ids == [*bytes_of("Instruction: a\nInput: b\nAnswer: "), *OPENING, *bytes_of("cd"), END]
    assert row.prompt_length == TEXT_BYTES + 2
    assert row.bears_loss == [False] * (TEXT_BYTES + 1) + [True] * 4  # <sop>, c, d and the end
    assert (row.cut_prompt, row.cut_target) == (0, 0)


@pytest.mark.parametrize("source", [FRAME + 1, FRAME + 2, TEXT_BYTES, TEXT_BYTES + 1, 400])
@pytest.mark.parametrize("family", [CHATGLM, FAMILIES["glm"]])
def test_training_and_use_share_the_prompt(family: Family, source: int) -> None:
    tokenizer = LeadingTokenizer(closes=False)
    source += 0 if family is CHATGLM else 2
    row = rendered(tokenizer, family, source=source)
    prompt = render_prompt(tokenizer, family, "a", "b", max_source_length=source)
    assert row.ids[: row.prompt_length] == prompt.ids
    assert prompt == Rendered(prompt.ids, [False] * len(prompt.ids), len(prompt.ids), row.cut_prompt)


@pytest.mark.parametrize(
    ("room", "context"),
    [
        (15, "Instruction: Name it.\nInput: Oslo is\nAnswer: "),
        (9, "Instruction: Name it.\nInput: O\nAnswer: "),
        (8, "Instruction: Name it.\nInput: \nAnswer: "),
        (4, "Instruction: Name\nInput: \nAnswer: "),
        (0, "Instruction: \nInput: \nAnswer: "),
    ],
)
def test_a_long_prompt_loses_its_inputs_end_and_asks_for_an_answer(room: int, context: str) -> None:
    prompt = render_prompt(ByteTokenizer(), CHATGLM, "Name it.", "Oslo is grey", max_source_length=FRAME + room + 1)
    assert prompt.ids == [*bytes_of(context), *OPENING]
    assert prompt.cut_prompt == 20 - room


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_a_prompt_whose_frame_alone_is_too_long_is_refused(style: str) -> None:
    tokenizer, family = prompt_bases()["turns"]
    with pytest.raises(StudioError) as caught:
        render_prompt(tokenizer, family, "Name it.", "Oslo", max_source_length=4, style=style)
    assert caught.value.code == "prompt-frame"
    least = caught.value.params["least"]
    for limit, kept in ((least, True), (least - 1, False)):
        with nullcontext() if kept else pytest.raises(StudioError, match="prompt-frame"):
            render_prompt(tokenizer, family, "Name it.", "Oslo", max_source_length=limit, style=style)


@pytest.mark.parametrize(("length", "kept"), [(4, 2), (9, 7), (11, 9), (12, 10), (300, 10)])
def test_a_long_target_keeps_its_end_token(length: int, kept: int) -> None:
    row = rendered(target="0123456789", length=length)
    assert row.ids[row.prompt_length :] == [*bytes_of("0123456789")[:kept], END]
    assert row.cut_target == 10 - kept
    assert len(row.ids) == len(row.bears_loss)


def test_an_empty_target_is_an_end() -> None:
    assert rendered(target="").ids[-3:] == [*OPENING, END]


@pytest.mark.parametrize("closes", [False, True])
def test_a_family_without_an_opening_takes_the_tokenizers_special_tokens(closes: bool) -> None:
    row = rendered(LeadingTokenizer(closes=closes), FAMILIES["glm"])
    assert row.ids == [7, 8, *bytes_of("Instruction: a\nInput: b\nAnswer: "), *bytes_of("cd"), END]
    assert row.bears_loss == [False] * row.prompt_length + [True] * 3


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"the official sentencepiece files are not in {OFFICIAL}")
@pytest.mark.parametrize("number", range(4))
def test_the_seeds_own_training_rows(number: int, tmp_path: Path) -> None:
    """Ids and labels of the original's `convert_example`. It cuts a long text at its end, "Answer:" and all; here the
    input is cut, so of such a row the beginning, its length and the answer are the original's."""
    case = json.loads((GOLDEN / "tokenizer_cases.json").read_text(encoding="utf-8"))["sft"][number]
    for file in (GOLDEN / "config.json", *OFFICIAL.iterdir()):
        (tmp_path / file.name).symlink_to(file)
    instruction, text = split_context(case["context"])
    row = render_example(
        load_tokenizer(tmp_path), CHATGLM, instruction, text, case["target"],
        max_source_length=case["max_source_seq_len"], max_target_length=case["max_target_seq_len"],
    )  # fmt: skip
    if row.cut_prompt:
        answer = row.ids[row.prompt_length - 2 :]
        start = case["input_ids"].index(answer[0])
        assert row.ids[:4] == case["input_ids"][:4]
        assert case["input_ids"][start : start + len(answer)] == answer
        return
    pads = len(case["input_ids"]) - len(row.ids)
    labels = [token if bears else -100 for token, bears in zip(row.ids, row.bears_loss, strict=True)]
    assert row.ids + [3] * pads == case["input_ids"]
    assert labels + [-100] * pads == case["labels"]
