"""A set of rows answered by base and adapter: answers land at their rows, scores match them, stopping keeps rows."""

from collections.abc import Callable
from typing import Any

import pytest

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.evaluation import scoreboard
from glmstudio.evaluation.evaluate import evaluate
from glmstudio.evaluation.scoreboard import Scoreboard
from glmstudio.evaluation.scores import score, verdict
from glmstudio.models.adapters.adapter_version import AdapterPrompt
from glmstudio.models.resident import BASE_NAME
from glmstudio.settings import GenerationSettings, TrainingSettings
from glmstudio.terminal import print_scores
from glmstudio.ui.evaluate_words import row_html, rows_html, scores_html
from glmstudio.ui.language import LANGUAGES, t
from tests.scripted import FIRST_BYTE, ScriptedResident

ADAPTERS = [BASE_NAME, "run-0001@best"]
# Prompts of different lengths, so that batches are padded and are not in the order of the rows.
EXAMPLES = [Example("分类", "果" * (7 * n % 10), f'["{n}"]') for n in range(10)]


def answer(adapter: str, text: str) -> str:
    """The base tells the prompt's tail in prose, the adapter labels by the number of 果, wrong at 3 of them."""
    fruits = text.count("果")
    if adapter == BASE_NAME:
        return f"有{fruits}个果"
    number = next(n for n in range(10) if 7 * n % 10 == fruits)
    return '["错"]' if fruits == 3 else f'["{number}"]'


def talkative() -> ScriptedResident:
    def script(adapter: str, prompt: list[int]) -> list[int]:
        text = bytes(token - FIRST_BYTE for token in prompt if token >= FIRST_BYTE).decode()
        return [FIRST_BYTE + byte for byte in answer(adapter, text).encode()]

    return ScriptedResident(script)


def evaluated(
    resident: ScriptedResident,
    adapters: list[str] = ADAPTERS,
    examples: list[Example] = EXAMPLES,
    *,
    max_new_tokens: int = 300,
    batch_rows: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    return evaluate(
        resident, adapters, examples, GenerationSettings(max_new_tokens=max_new_tokens),
        max_source_length=400, on_progress=on_progress, should_stop=should_stop, batch_rows=batch_rows,
    )  # fmt: skip


def test_rows_and_totals() -> None:
    result = evaluated(talkative(), batch_rows=6)
    assert [row["target"] for row in result["rows"]] == [example.target for example in EXAMPLES]
    for row, example in zip(result["rows"], EXAMPLES, strict=True):
        assert row == {
            "instruction": "分类",
            "input": example.input,
            "target": example.target,
            "base": answer(BASE_NAME, example.input),
            "tuned": answer("tuned", example.input),
            "cut": [],
        }
    for name in ("base", "tuned"):
        expected = score((row["target"], row[name]) for row in result["rows"])
        assert result[name] == expected | {"finish_reasons": {"stop": 10}}
    assert result["base"]["json_valid"] == 0.0
    assert (result["tuned"]["json_valid"], result["tuned"]["label_accuracy"]) == (1.0, 0.9)
    assert (result["total"], result["cancelled"]) == (10, False)


def test_base_alone() -> None:
    result = evaluated(talkative(), adapters=[BASE_NAME])
    assert result["tuned"] is None
    assert all(row["tuned"] is None for row in result["rows"])
    assert result["base"]["rows"] == 10


@pytest.mark.parametrize(("batch_rows", "first"), [(6, 6), (7, 7), (1, 1), (None, 20)])
def test_a_bound_on_the_answers_in_work(batch_rows: int | None, first: int) -> None:
    resident = talkative()
    evaluated(resident, batch_rows=batch_rows)
    assert resident.batch_sizes[0] == first
    assert max(resident.batch_sizes) == first


def test_the_places_of_finished_answers_are_filled_again() -> None:
    resident = talkative()
    evaluated(resident, batch_rows=6)
    passes = sum(len(answer(adapter, row.input).encode()) + 1 for row in EXAMPLES for adapter in ADAPTERS) / 6
    # Entering passes have fewer rows; a batch that is only replaced as a whole takes half as many again.
    assert len(resident.batch_sizes) < 1.3 * passes


def test_the_cache_stays_within_its_bound() -> None:
    """Long rows come in smaller batches: 2 heads × 4 numbers × key and value × 4 bytes = 64 bytes a token here."""
    resident = talkative()
    resident.base.model.config.num_layers = 2**14  # 1 MiB a token
    evaluated(resident, max_new_tokens=300)
    assert max(resident.batch_sizes) == 5


def test_progress_counts_rows_one_by_one() -> None:
    seen: list[tuple[int, int]] = []
    evaluated(talkative(), batch_rows=8, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_stopping_keeps_the_rows_that_both_have_answered() -> None:
    seen: list[tuple[int, int]] = []
    result = evaluated(
        talkative(), batch_rows=8,
        on_progress=lambda *counts: seen.append(counts),
        should_stop=lambda: len(seen) >= 3,
    )  # fmt: skip
    assert (len(result["rows"]), result["total"], result["cancelled"]) == (seen[-1][0], 10, True)
    assert 3 <= seen[-1][0] < 10
    assert result["base"]["rows"] == result["tuned"]["rows"] == len(result["rows"])
    for row in result["rows"]:
        assert (row["base"], row["tuned"]) == tuple(answer(name, row["input"]) for name in ADAPTERS)


def test_stopping_at_once_leaves_nothing_to_count() -> None:
    result = evaluated(talkative(), should_stop=lambda: True)
    assert (result["rows"], result["cancelled"]) == ([], True)
    assert result["tuned"]["exact_match"] is None


def test_answers_that_were_cut_are_counted_and_seen(capsys) -> None:
    result = evaluated(talkative(), max_new_tokens=6)
    assert result["tuned"]["finish_reasons"] == {"stop": 9, "length": 1}  # ["错"] is 7 bytes
    assert result["base"]["finish_reasons"] == {"length": 10}
    assert [row["cut"] for row in result["rows"]].count(["base", "tuned"]) == 1
    assert [row["cut"] for row in result["rows"]].count(["base"]) == 9
    print_scores(result)
    assert "answers cut at 6 tokens: base 10 of 10, tuned 1 of 10" in capsys.readouterr().out
    board = Scoreboard("run-0001", "best", "cities", 0.0, result, {"max_new_tokens": result["max_new_tokens"]}, "", "")
    place = next(place for place, row in enumerate(result["rows"]) if "tuned" in row["cut"])
    for lang in LANGUAGES:
        assert t("evaluate.cut", lang, limit=6, base=10, tuned=1, rows="10") in scores_html(board, lang, has_runs=True)
        assert row_html(board, place, lang).count(t("compare.ended.length", lang)) == 2
        assert rows_html(board, "all", 0, lang).count("✂") == 1


def test_answers_are_judged_once_however_often_their_rows_are_drawn(monkeypatch) -> None:
    judged = []
    monkeypatch.setattr(scoreboard, "verdict", lambda target, answer: judged.append(answer) or verdict(target, answer))
    row = {"instruction": "i" * 5_000_000, "input": "", "target": "[1]", "base": "[2]", "tuned": "[1]"}
    board = Scoreboard("run-0001", "best", "d", 0.0, {"rows": [row, row]})
    drawn = [rows_html(board, wanted, 1, "en") for wanted in ("all", "wrong", "better", "all")]
    assert [html.count("<tr data-place") for html in drawn] == [2, 0, 2, 2]
    assert len(judged) == 4
    assert len(drawn[0]) < 2_000


def test_the_length_that_was_trained_is_the_limit_unless_one_is_named() -> None:
    prompt = AdapterPrompt(max_target_length=800)
    assert prompt.answered(GenerationSettings()).max_new_tokens == 800
    assert prompt.answered(GenerationSettings(max_new_tokens=7)).max_new_tokens == 7
    assert AdapterPrompt().answered(GenerationSettings()).max_new_tokens == TrainingSettings().max_target_length


def test_no_rows() -> None:
    with pytest.raises(StudioError) as caught:
        evaluated(talkative(), examples=[])
    assert caught.value.code == "evaluate-empty"
