"""The check finds everything at once, and what it lets through trains."""

import dataclasses
from pathlib import Path

from glmstudio.data.example import Example
from glmstudio.models.families.table import FAMILIES
from glmstudio.settings import PROMPT_STYLES, LoraSettings, TrainingSettings
from glmstudio.training.batches import render_rows
from glmstudio.training.check import optimizer_steps
from tests.prompt_bases import prompt_bases, with_template
from tests.tiny_base import rows, tiny_base
from tests.train.runs import DEV, FAST, TRAIN, checked, run_in

BASE = tiny_base()


def codes(findings, severity: str = "") -> list[str]:
    return [found.code for found in findings if not severity or found.severity == severity]


def test_good_rows_and_settings_leave_only_the_plan(tmp_path: Path) -> None:
    (plan,) = checked(BASE, TRAIN, DEV, LoraSettings(), FAST)
    longest = max(len(row.ids) for row in render_rows(BASE, [*TRAIN, *DEV], FAST))
    assert (plan.code, plan.count, plan.params) == ("plan", 22, {"dev": 6, "steps": 12, "longest": longest})
    assert run_in(tmp_path / "run").total == plan.params["steps"]


def test_everything_wrong_is_told_at_once_errors_first() -> None:
    settings = TrainingSettings(learning_rate=5.0, num_train_epochs=0, lr_scheduler_type="odd")
    lora = LoraSettings(r=0, target_modules=("typo",))
    found = checked(
        BASE, [Example("a", target="[1,"), Example("a", target="")], [Example("a", target="")], lora, settings
    )
    errors = codes(found, "error")
    assert sorted(errors) == ["lora-targets", "setting-bounds", "setting-bounds", "setting-bounds", "setting-choice"]
    assert {"broken-json", "empty-target"} <= set(codes(found, "warning"))
    assert codes(found)[: len(errors)] == errors


def test_no_rows_no_dev_rows_no_base_no_tokenizer() -> None:
    assert codes(checked(BASE, [], [], LoraSettings(), FAST)) == ["train-empty"]
    assert codes(checked(BASE, TRAIN, [], LoraSettings(), FAST)) == ["no-dev", "plan"]
    assert codes(checked(None, TRAIN, DEV, LoraSettings(), FAST)) == ["base-not-ready", "plan"]
    bare = dataclasses.replace(BASE, tokenizer=None)
    assert codes(checked(bare, TRAIN, DEV, LoraSettings(), FAST)) == ["no-tokenizer", "plan"]


def test_rows_that_are_cut_are_named_with_the_longest() -> None:
    long_prompt = Example("Name it.", "red " * 40, "red", id=71)
    long_target = Example("Name it.", "red", "blue " * 30)
    settings = dataclasses.replace(FAST, max_source_length=120, max_target_length=60)
    found = {
        item.code: item for item in checked(BASE, [*rows(3), long_prompt], [long_target], LoraSettings(), settings)
    }
    assert found["prompt-cut"].rows == (71,)
    assert found["target-cut"].rows == (5,)
    assert found["prompt-cut"].params["limit"] == 120
    assert found["prompt-cut"].params["most"] > 160
    assert 140 < found["target-cut"].params["most"] < 160
    longer = dataclasses.replace(FAST, max_source_length=found["prompt-cut"].params["most"] + 1)
    assert "prompt-cut" not in codes(checked(BASE, [long_prompt], DEV, LoraSettings(), longer))


def test_a_limit_below_what_stands_around_every_row_is_an_error() -> None:
    for style in PROMPT_STYLES:
        tokenizer, family = prompt_bases()["turns"]
        base = dataclasses.replace(BASE, tokenizer=tokenizer, family=family)
        settings = dataclasses.replace(FAST, prompt_style=style, max_source_length=8)
        found = checked(base, TRAIN, DEV, LoraSettings(), settings)
        (refused,) = (finding for finding in found if finding.code == "prompt-frame")
        assert refused.severity == "error"
        enough = dataclasses.replace(settings, max_source_length=refused.params["least"])
        assert "prompt-frame" not in codes(checked(base, TRAIN, DEV, LoraSettings(), enough))


def test_lengths_are_those_of_the_chosen_style() -> None:
    """The same rows in both styles, one after the other: what was counted for one is not told for the other."""
    tokenizer, family = prompt_bases()["turns"]
    base = dataclasses.replace(BASE, tokenizer=tokenizer, family=family)
    examples = [*rows(3), Example("Name it.", "red " * 40, "blue " * 30)]
    longest = {}
    for style in PROMPT_STYLES:
        settings = dataclasses.replace(FAST, prompt_style=style, max_source_length=40, max_target_length=20)
        found = {item.code: item for item in checked(base, examples, DEV, LoraSettings(), settings)}
        rendered = render_rows(base, [*examples, *DEV], settings)
        assert found["plan"].params["longest"] == max(len(row.ids) for row in rendered)
        assert found["prompt-cut"].rows == tuple(place + 1 for place, row in enumerate(rendered) if row.cut_prompt)
        assert found["prompt-cut"].params["most"] == max(row.prompt_length + row.cut_prompt for row in rendered)
        assert found["target-cut"].count == sum(row.cut_target > 0 for row in rendered)
        longest[style] = found["prompt-cut"].params["most"]
    assert longest["chat"] != longest["instruction"]


def test_a_base_without_a_chat_template_trains_in_the_other_style() -> None:
    base = dataclasses.replace(BASE, tokenizer=with_template(None), family=FAMILIES["llama"])
    in_chat = dataclasses.replace(FAST, prompt_style="chat")
    assert "no-chat-template" in codes(checked(base, TRAIN, DEV, LoraSettings(), in_chat), "error")
    assert "no-chat-template" not in codes(checked(base, TRAIN, DEV, LoraSettings(), FAST))


def test_a_batch_that_no_dataset_fills_is_told() -> None:
    wide = dataclasses.replace(FAST, per_device_train_batch_size=16, gradient_accumulation_steps=2)
    assert codes(checked(BASE, TRAIN, DEV, LoraSettings(), wide)) == ["batch-beyond-rows", "plan"]
    assert optimizer_steps(22, wide) == 2
    assert optimizer_steps(400, TrainingSettings(num_train_epochs=8)) == 400
    assert optimizer_steps(22, dataclasses.replace(FAST, num_train_epochs=0.5)) == 3
