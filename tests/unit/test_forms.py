"""Forms come from the settings dataclasses alone: kinds, values there and back, and what cannot be read."""

import dataclasses

import gradio as gr
import pytest

from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings
from glmstudio.ui.forms import Form, fields_of
from glmstudio.ui.language import LANGUAGES, words

DECLARED = [(owner, item.name) for owner in (LoraSettings, TrainingSettings, GenerationSettings)
            for item in dataclasses.fields(owner)]  # fmt: skip


def placed_form() -> Form:
    form = Form("train", LoraSettings(), TrainingSettings())
    with gr.Blocks():
        form.place("num_train_epochs", "learning_rate")
        form.place_rest()
    return form


def shown_values(form):
    return [component.value for component in form.inputs]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("owner", "name"), DECLARED, ids=lambda value: getattr(value, "__name__", value))
def test_every_setting_has_its_words(language, owner, name):
    assert words(language)[f"setting.{name}.label"]
    assert words(language)[f"setting.{name}.help"]


def test_a_form_holds_every_field_once_in_the_order_placed():
    form = placed_form()
    ids = [component.elem_id for component in form.inputs]
    assert ids[:2] == ["train-num-train-epochs", "train-learning-rate"]
    assert (
        len(ids) == len(set(ids)) == len(dataclasses.fields(LoraSettings)) + len(dataclasses.fields(TrainingSettings))
    )


def test_kinds_follow_the_types():
    kinds = {component.elem_id: type(component) for component in placed_form().inputs}
    assert kinds["train-learning-rate"] is gr.Number
    assert kinds["train-lr-scheduler-type"] is gr.Dropdown
    assert kinds["train-prefix-projection"] is gr.Checkbox
    assert kinds["train-target-modules"] is gr.Textbox


def test_settings_survive_the_form():
    form = placed_form()
    lora = LoraSettings(r=4, target_modules=("query_key_value", "dense"))
    training = TrainingSettings(num_train_epochs=2.5, lr_scheduler_type="cosine", gradient_checkpointing="on", seed=7)
    assert form.read(form.updates(lora, training)) == ((lora, training), [])
    assert form.read(shown_values(form)) == ((LoraSettings(), TrainingSettings()), [])


def test_whole_numbers_come_back_whole():
    form = placed_form()
    (lora, training), problems = form.read([float(v) if type(v) is int else v for v in shown_values(form)])
    assert problems == []
    assert (type(lora.r), type(training.seed), type(training.num_train_epochs)) == (int, int, float)


def test_a_preset_leaves_other_fields_alone():
    form = placed_form()
    skipped = [update for update in form.updates(TrainingSettings()) if isinstance(update, dict)]
    assert skipped == [gr.skip()] * len(dataclasses.fields(LoraSettings))


def test_what_cannot_be_read_is_reported_all_at_once():
    form = placed_form()
    typed = dict(zip([component.elem_id for component in form.inputs], shown_values(form), strict=True))
    typed |= {"train-learning-rate": None, "train-r": 8.5, "train-seed": float("nan")}
    (lora, training), problems = form.read(list(typed.values()))
    found = {problem.params["field"]: problem.code for problem in problems}
    assert found == {"learning_rate": "setting-empty", "r": "setting-whole", "seed": "setting-empty"}
    assert (lora.r, training.learning_rate) == (LoraSettings().r, TrainingSettings().learning_rate)


def test_target_modules_are_typed_with_commas_or_spaces_in_both_languages():
    (field,) = [found for found in fields_of(LoraSettings) if found.name == "target_modules"]
    assert field.parsed("a, b，c  d") == ("a", "b", "c", "d")
    assert field.parsed("") == ()
