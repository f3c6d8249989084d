"""Answers side by side: one batch, text that grows by whole characters, stopping, what is left when it is closed."""

from collections.abc import Iterator

import pytest

from glmstudio.errors import StudioError
from glmstudio.inference.compare import Answer, Comparison, answer_text, compare
from glmstudio.models.chat_format import render_prompt
from glmstudio.models.resident import BASE_NAME
from glmstudio.settings import PROMPT_STYLES, GenerationSettings
from tests.scripted import FIRST_BYTE, ByteTokenizer, ScriptedResident

ADAPTERS = [BASE_NAME, "run-0001@best"]
ANSWERS = {BASE_NAME: "好，😀！", "run-0001@best": '["水果"]'}


def resident_that_says(answers: dict[str, str]) -> ScriptedResident:
    return ScriptedResident(lambda adapter, _: [FIRST_BYTE + byte for byte in answers[adapter].encode()])


def asked(
    resident: ScriptedResident,
    adapters: list[str],
    stop_after: int = 1000,
    style: str = "instruction",
    **changes: int,
) -> Iterator[Comparison]:
    steps = iter(range(stop_after))
    return compare(
        resident, adapters, "分类", "苹果很甜", GenerationSettings(**changes),
        max_source_length=400, style=style, should_stop=lambda: next(steps, None) is None,
    )  # fmt: skip


def test_both_answers_come_from_one_batch() -> None:
    resident = resident_that_says(ANSWERS)
    *_, last = asked(resident, ADAPTERS)
    assert [row.text for row in last.rows] == [ANSWERS[name] for name in ADAPTERS]
    assert [row.label for row in last.rows] == ADAPTERS
    assert [row.finish_reason for row in last.rows] == ["stop", "stop"]
    assert [row.tokens for row in last.rows] == [len(ANSWERS[name].encode()) for name in ADAPTERS]
    assert resident.batch_sizes[0] == 2
    assert len(resident.batch_sizes) == max(row.tokens for row in last.rows) + 1


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_the_models_are_asked_what_training_renders(style: str) -> None:
    seen = []
    resident = ScriptedResident(lambda _, prompt: seen.append(prompt) or [])
    (only,) = asked(resident, ADAPTERS, style=style)
    tokenizer, family = resident.base.tokenizer, resident.base.family
    prompt = render_prompt(tokenizer, family, "分类", "苹果很甜", max_source_length=400, style=style)
    assert seen == [prompt.ids, prompt.ids]
    assert (only.prompt_tokens, only.cut_prompt) == (len(prompt.ids), 0)


def test_a_prompt_that_is_cut_says_by_how_much() -> None:
    resident = resident_that_says(ANSWERS)
    shot = next(
        compare(resident, ADAPTERS, "分类", "甜" * 100, GenerationSettings(), max_source_length=50, should_stop=bool)
    )
    fixed = len("Instruction: 分类\nInput: \nAnswer: ".encode()) + 2
    # Whole characters only, of three tokens each.
    assert shot.prompt_tokens == fixed + (51 - fixed) // 3 * 3
    assert shot.cut_prompt == fixed + 300 - shot.prompt_tokens


def test_a_text_grows_by_whole_characters() -> None:
    for row, name in enumerate(ADAPTERS):
        texts = [shot.rows[row].text for shot in asked(resident_that_says(ANSWERS), ADAPTERS)]
        assert "\ufffd" not in "".join(texts)
        assert all(ANSWERS[name].startswith(text) for text in texts)
        assert set(texts) >= {ANSWERS[name][:end] for end in range(1, len(ANSWERS[name]) + 1)}


def test_an_answer_cut_in_a_character_loses_it() -> None:
    *_, last = asked(resident_that_says(ANSWERS), [BASE_NAME], max_new_tokens=5)
    assert last.rows == (Answer(BASE_NAME, "好", 5, last.rows[0].seconds, "length"),)
    assert answer_text(ByteTokenizer(), []) == ""


def test_what_a_dialogue_puts_in_front_of_an_answer_is_not_shown() -> None:
    tokenizer, line = ByteTokenizer(), FIRST_BYTE + ord("\n")
    said = [FIRST_BYTE + byte for byte in "\n好".encode()]
    assert answer_text(tokenizer, [line, *said], (line,)) == "\n好"
    assert answer_text(tokenizer, said[1:], (line,)) == "好"
    assert [answer_text(tokenizer, said[:end], (line,)) for end in range(5)] == ["", "", "", "", "好"]


def test_one_model_alone() -> None:
    *_, last = asked(resident_that_says(ANSWERS), [BASE_NAME])
    assert [row.text for row in last.rows] == [ANSWERS[BASE_NAME]]


def test_seconds_stop_with_the_row() -> None:
    shots = list(asked(resident_that_says({BASE_NAME: "甲", "run-0001@best": "很长的回答" * 3}), ADAPTERS))
    short, long = shots[-1].rows
    first_done = next(shot for shot in shots if shot.rows[0].finish_reason)
    assert first_done.rows[0] == short
    assert 0 < short.seconds < long.seconds
    assert long.tokens_per_second == pytest.approx(long.tokens / long.seconds)
    assert Answer("x").tokens_per_second == 0.0


def test_stopping_keeps_what_was_said() -> None:
    resident = resident_that_says(ANSWERS)
    shots = list(asked(resident, ADAPTERS, stop_after=4))
    assert len(resident.batch_sizes) == 4
    assert [row.finish_reason for row in shots[-1].rows] == ["cancelled", "cancelled"]
    assert [row.text for row in shots[-1].rows] == ["好", '["']
    assert [row.tokens for row in shots[-1].rows] == [4, 4]


def test_closing_the_stream_ends_the_work() -> None:
    resident = resident_that_says(ANSWERS)
    stream = asked(resident, ADAPTERS)
    next(stream)
    inner = stream.gi_frame.f_locals["columns"]
    stream.close()
    assert inner.gi_frame is None  # closed too, and with it the cache
    assert len(resident.batch_sizes) == 1


def test_a_base_without_a_tokenizer_is_told() -> None:
    resident = resident_that_says(ANSWERS)
    resident.base.tokenizer = None
    with pytest.raises(StudioError) as caught:
        next(asked(resident, ADAPTERS))
    assert caught.value.code == "no-tokenizer"
