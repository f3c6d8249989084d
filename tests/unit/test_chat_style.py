"""The `chat` style: the originals' own prompts, chat templates of every manner, cuts that spare the structure."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from glmstudio.errors import StudioError
from glmstudio.inference.compare import answer_text
from glmstudio.models.chat_format import Rendered, render_example, render_examples, render_prompt
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.families.original_glm import GLM_4
from glmstudio.models.families.table import FAMILIES, family_of
from glmstudio.models.loading import load_tokenizer
from glmstudio.models.prompts.dialogue import dialogue_of, stop_ids
from glmstudio.settings import PROMPT_STYLES
from tests import tiny_families
from tests.prompt_bases import BASES, TEMPLATES, prompt_bases, with_template
from tests.small_vocabularies import TYPED
from tests.unit.golden_cases import GOLDEN, official_tokenizer_folder

OFFICIAL = ("chatglm", "chatglm2", "chatglm3")
LONG = {"max_source_length": 4000, "max_target_length": 4000}
CHARACTERS = [
    *"ab 12\n\n\t.,。，：",
    "你",
    "好",
    "鱻",
    "😀",
    "é",
    "\u3000",
    "<sop>",
    "<|user|>",
    "[Round 1]",
    "  ",
    "\ufeff",
]

needs_official = pytest.mark.skipif(
    not all(official_tokenizer_folder(name).is_dir() for name in OFFICIAL), reason="no official sentencepiece files"
)


def official(name: str, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """(tokenizer, family, golden cases) of an original."""
    config = GOLDEN / name / "config.json"
    for file in (config, *official_tokenizer_folder(name).iterdir()):
        (folder / file.name).symlink_to(file)
    cases = json.loads((GOLDEN / name / "tokenizer_cases.json").read_text(encoding="utf-8"))
    return load_tokenizer(folder), family_of(json.loads(config.read_text(encoding="utf-8")), name), cases


@needs_official
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_originals_first_round(name: str, tmp_path: Path) -> None:
    tokenizer, family, cases = official(name, tmp_path)
    first = [case for case in cases["chat"] if case.get("history") == []]
    assert first
    for case in first:
        prompt = render_prompt(tokenizer, family, case["query"], "", max_source_length=400, style="chat")
        assert (prompt.ids, prompt.cut_prompt) == (case["ids"], 0)


@needs_official
@pytest.mark.parametrize("number", range(2))
def test_chatglm2s_own_training_rows(number: int, tmp_path: Path) -> None:
    tokenizer, family, cases = official("chatglm2", tmp_path)
    case = cases["sft"][number]
    row = render_example(tokenizer, family, case["context"], "", case["target"], style="chat", **LONG)
    assert (row.ids, row.prompt_length) == (case["input_ids"], case["seq_len"])
    assert row.bears_loss == [False] * row.prompt_length + [True] * (len(row.ids) - row.prompt_length)


@needs_official
def test_chatglm3s_answers_are_as_its_history_has_them(tmp_path: Path) -> None:
    """What the original makes of an answer that lies behind it: the head, then the text encoded by itself."""
    tokenizer, family, cases = official("chatglm3", tmp_path)
    (question, answer) = cases["chat"][1]["history"]
    row = render_example(tokenizer, family, question["content"], "", answer["content"], style="chat", **LONG)
    assert row.ids[:-1] == cases["chat"][1]["ids"][: len(row.ids) - 1]
    assert row.ids[-1] == tokenizer.eos_token_id
    assert answer_text(tokenizer, row.ids[row.prompt_length : -1], row.answer_head) == answer["content"]


def test_instruction_and_input_are_one_message() -> None:
    tokenizer, family = prompt_bases()["glm-4"]
    limit = {"max_source_length": 400, "style": "chat"}
    both = render_prompt(tokenizer, family, "Name it.", "Oslo", **limit)
    assert both == render_prompt(tokenizer, family, "Name it.\nOslo", "", **limit)
    assert both == render_prompt(tokenizer, family, "", "Name it.\nOslo", **limit)


def test_glm_4_in_its_original_form() -> None:
    tokenizer = tiny_families.tiny_tokenizer()
    row = render_example(tokenizer, GLM_4, "Name it.", "", "red", style="chat", **LONG)
    assert tokenizer.decode(row.ids) == "[gMASK]<sop><|user|>\nName it.<|assistant|>\nred<|endoftext|>"
    assert row.prompt_length == row.ids.index(tokenizer.convert_tokens_to_ids("<|assistant|>")) + 1
    assert row.answer_head == tuple(tokenizer.encode("\n", add_special_tokens=False))
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<|observation|>"])
    assert stop_ids(tokenizer, GLM_4) == set(ends)


@pytest.mark.parametrize(
    ("name", "text", "head", "end"),
    [
        ("turns", "<|system|>Help.<|observation|>\n<|user|> Go. <|observation|>\n<|assistant|>", "", "<|observation|>"),
        ("plain", "[gMASK]<sop><|user|>\n Go. <|assistant|>", "\n", "<|endoftext|>"),
        ("thinking", "<|user|>\n Go. <|observation|>\n<|assistant|>\n<think>\n\n</think>\n\n", "", "<|observation|>"),
        ("switched", "[gMASK]<sop><|user|>\n Go. /nothink<|assistant|>\n<think></think>", "\n", "<|endoftext|>"),
        ("opened", "[gMASK]<sop><|user|>\n Go. <|assistant|>\n", "", "<|endoftext|>"),
        ("trimmed", "<sop>Go. <|user|>", " ", "<|endoftext|>"),
    ],
)
def test_a_template_gives_prompt_head_and_end(name: str, text: str, head: str, end: str) -> None:
    tokenizer, family = prompt_bases()[name]
    row = render_example(tokenizer, family, " Go. ", "", "red", style="chat", **LONG)
    assert tokenizer.decode(row.ids[: row.prompt_length]) == text
    assert tokenizer.decode(list(row.answer_head)) == head
    assert tokenizer.decode(row.ids[row.prompt_length :]) == f"{head}red{end}"
    assert answer_text(tokenizer, row.ids[row.prompt_length : -1], row.answer_head) == "red"
    assert tokenizer.convert_tokens_to_ids(end) in stop_ids(tokenizer, family)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "opened"])
def test_a_templates_prompt_is_what_transformers_asks_with(name: str) -> None:
    tokenizer, family = prompt_bases()[name]
    messages = [{"role": "user", "content": " 你好\nGo. "}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    ids = render_prompt(tokenizer, family, " 你好", "Go. ", max_source_length=400, style="chat").ids
    assert ids == asked["input_ids"]


@pytest.mark.parametrize(
    ("template", "code"), [(None, "no-chat-template"), ("{{ raise_exception('no') }}", "chat-template-unfit")]
)
def test_a_base_without_a_dialogue_is_told_and_answers_instructions(template: str | None, code: str) -> None:
    tokenizer, family = with_template(template), FAMILIES["llama"]
    with pytest.raises(StudioError) as caught:
        render_prompt(tokenizer, family, "a", "b", max_source_length=400, style="chat")
    assert caught.value.code == code
    assert render_prompt(tokenizer, family, "a", "b", max_source_length=400).ids
    assert stop_ids(tokenizer, family) == set()


def random_text(chance: random.Random) -> str:
    return "".join(chance.choices(CHARACTERS, k=chance.choice([0, 1, 5, 30, 120])))


def check_row(tokenizer: Any, family: Any, row: Rendered, whole: Rendered, source: int, target: int) -> None:
    """What holds for a row in both styles, cut or not; `whole` is the same row without limits."""
    answer, uncut = row.ids[row.prompt_length :], whole.ids[whole.prompt_length :]
    assert answer == [*uncut[:-1][: target - 2], uncut[-1]]
    assert len(answer) + row.cut_target == len(uncut)
    assert row.prompt_length + row.cut_prompt == whole.prompt_length
    assert row.bears_loss[row.prompt_length :] == [True] * len(answer)
    assert not any(row.bears_loss[: row.prompt_length - family.start_bears_loss])
    assert row.prompt_length <= source + (family is CHATGLM)


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("name", BASES)
def test_training_and_use_share_the_prompt_whatever_is_typed(name: str, style: str) -> None:
    tokenizer, family = prompt_bases()[name]
    chance = random.Random(f"{name} {style}")
    bare = len(render_prompt(tokenizer, family, "", "", max_source_length=400, style=style).ids)
    for _ in range(15):
        instruction, input, target = (random_text(chance) for _ in range(3))
        source, length = bare + chance.choice([1, 2, 14, 33, 57, 400]), chance.choice([4, 7, 30, 300])
        limits = {"max_source_length": source, "max_target_length": length, "style": style}
        row = render_example(tokenizer, family, instruction, input, target, **limits)
        prompt = render_prompt(tokenizer, family, instruction, input, max_source_length=source, style=style)
        assert row.ids[: row.prompt_length] == prompt.ids
        assert (row.cut_prompt, row.answer_head) == (prompt.cut_prompt, prompt.answer_head)
        whole = render_example(tokenizer, family, instruction, input, target, style=style, **LONG)
        check_row(tokenizer, family, row, whole, source, length)


@pytest.mark.parametrize("style", PROMPT_STYLES)
@pytest.mark.parametrize("name", BASES)
def test_many_rows_at_once_are_rendered_as_one_by_one(name: str, style: str) -> None:
    tokenizer, family = prompt_bases()[name]
    chance = random.Random(f"{name} {style}")
    rows = [tuple(random_text(chance) for _ in range(3)) for _ in range(20)] + [(text, text, text) for text in TYPED]
    limits = {"max_source_length": 60, "max_target_length": 30, "style": style}
    together = render_examples(tokenizer, family, rows, **limits)
    assert together == [render_example(tokenizer, family, *row, **limits) for row in rows]


def test_a_text_of_a_book_is_cut_without_reading_it_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, family = prompt_bases()["chatglm2"]
    book, read = "这部小说连载于一家中文网站，abc 1234 " * 40_000, []
    encode = type(tokenizer).encode

    def counting(self: Any, text: str, **more: Any) -> list[int]:
        read.append(len(text))
        return encode(self, text, **more)

    monkeypatch.setattr(type(tokenizer), "encode", counting)
    prompt = render_prompt(tokenizer, family, "Name it.", book, max_source_length=100)
    assert sum(length > 50_000 for length in read) == 1
    longer = render_prompt(tokenizer, family, "Name it.", book[:2_000], max_source_length=100)
    assert prompt.ids == longer.ids


@pytest.mark.parametrize("name", BASES)
def test_a_cut_message_keeps_all_that_stands_around_it(name: str) -> None:
    tokenizer, family = prompt_bases()[name]
    message = "Oslo is grey, 你好" * 4
    starts = dialogue_of(tokenizer, family).prompts([message[:end] for end in range(len(message) + 1)])
    bare, whole = len(starts[0]), len(starts[-1])
    for limit in {bare, bare + 1, bare + 9, whole - 1, whole}:
        prompt = render_prompt(tokenizer, family, message, "", max_source_length=limit, style="chat")
        kept = max(end for end, ids in enumerate(starts) if ids == prompt.ids)
        assert len(prompt.ids) <= limit
        assert prompt.cut_prompt == whole - len(prompt.ids)
        # A longer start of the message would not have fitted.
        assert kept == len(message) or len(starts[kept + 1]) > limit
        assert (kept == len(message)) == (limit >= whole)
