"""Every row of the family table from a folder to merged weights: load, train, stop and go on, compare, merge, reload.

The models are tiny and random, with the real config keys of their family; folders in original form have the shapes of
the golden sets and small vocabularies.
"""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from glmstudio.inference.compare import Answer, compare
from glmstudio.models.adapters.adapter_version import adapter_prompt
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base import Base
from glmstudio.models.exporting.export_merged import export_merged
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base
from glmstudio.models.resident import Resident
from glmstudio.settings import PROMPT_STYLES, GenerationSettings, LoraSettings, TrainingSettings
from glmstudio.training.batches import render_rows
from glmstudio.training.runs import RunFolder
from tests import tiny_base
from tests.tiny_families import QUIRKS, native_folder
from tests.train.runs import assert_same, records, resume_in, run_in, weights
from tests.unit.test_converting import SETS, with_tokenizer

SETTINGS = TrainingSettings(num_train_epochs=5, learning_rate=2e-2, per_device_train_batch_size=4, eval_steps=10)
TRAIN, DEV = tiny_base.rows(16), tiny_base.rows(4, split="dev", first=100)
LORA = LoraSettings(r=4, lora_dropout=0.1)
BRIEF = GenerationSettings(max_new_tokens=8)

pytestmark = pytest.mark.slow


def base_folder(name: str, folder: Path) -> Path:
    if name in QUIRKS:
        return native_folder(name, folder)
    if name in SETS:
        return with_tokenizer(SETS[name], folder)
    tiny_base.tiny_model().save_pretrained(folder)
    tiny_base.tiny_tokenizer().save_pretrained(folder)
    return folder


@dataclasses.dataclass
class Row:
    """A row of the table with a folder of its kind; `run(style)` is a run of 20 steps, trained once."""

    name: str
    home: Path

    def __post_init__(self) -> None:
        self.folder = base_folder(self.name, self.home / "base")
        self.base = self.loaded()
        self.resident = Resident(self.base)
        self.run = functools.cache(self._run)

    def loaded(self) -> Base:
        return load_base(self.folder, device="cpu", dtype="fp32")

    def _run(self, style: str) -> Path:
        settings = dataclasses.replace(SETTINGS, prompt_style=style)
        run_in(self.home / style, settings, lora=LORA, train_rows=TRAIN, dev_rows=DEV, resident=self.resident)
        return self.home / style

    def answers(self, style: str, *adapters: str) -> tuple[Answer, ...]:
        *_, last = compare(
            self.resident, adapters, "Name it.", "7 Oslo is blue.", BRIEF,
            max_source_length=100, style=style, should_stop=lambda: False,
        )  # fmt: skip
        return last.rows


@pytest.fixture(scope="module", params=FAMILIES)
def row(request, tmp_path_factory) -> Row:
    return Row(request.param, tmp_path_factory.mktemp(request.param))


def test_the_table_knows_its_folders(row: Row) -> None:
    assert row.base.family is FAMILIES[row.name]
    assert row.base.tokenizer is not None


def test_adapters_sit_on_the_rows_layers_and_on_all_of_them(row: Row) -> None:
    linear = [path for path, module in row.loaded().model.named_modules() if isinstance(module, torch.nn.Linear)]
    names = {path.rpartition(".")[2] for path in linear}
    wanted = set(row.base.family.target_modules)
    assert wanted <= names
    # The router of the mixture is no linear layer, and its fused experts stay frozen like the dense layers before them.
    experts = {"gate_proj", "up_proj", "down_proj"} if "moe" in row.name else set()
    # What chooses the tokens to look at has no gradient.
    indexer = {"wk", "wq_b", "weights_proj"} if row.name == "glm_moe_dsa" else set()
    assert names - wanted <= {"lm_head"} | experts | indexer
    adapted = [name.rpartition(".lora_")[0] for name in weights(row.run("instruction") / "last") if ".lora_A." in name]
    targets = {path for path in linear if path.rpartition(".")[2] in wanted}
    assert {name.removeprefix("base_model.model.") for name in adapted} == targets


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_twenty_steps_lower_the_loss(row: Row, style: str) -> None:
    folder = row.run(style)
    losses = [record.values["loss"] for record in records(folder, "train")]
    assert len(losses) == 20
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])
    dev = [record.values["loss"] for record in records(folder, "eval")]
    assert dev[-1] < dev[0]


def test_the_styles_show_the_model_different_prompts(row: Row) -> None:
    rendered = [
        render_rows(row.base, TRAIN, dataclasses.replace(SETTINGS, prompt_style=style)) for style in PROMPT_STYLES
    ]
    assert all(plain.ids != chat.ids for plain, chat in zip(*rendered, strict=True))
    assert [adapter_prompt(row.run(style) / "last").style for style in PROMPT_STYLES] == list(PROMPT_STYLES)


def test_stopped_and_gone_on_with_is_straight(row: Row, tmp_path: Path) -> None:
    told = []
    run = run_in(
        tmp_path / "run", SETTINGS, lora=LORA, train_rows=TRAIN, dev_rows=DEV, resident=row.resident,
        should_stop=lambda: told[-1].step >= 13, on_progress=told.append,
    )  # fmt: skip
    assert run.status == "stopped"
    resume_in(tmp_path / "run", train_rows=TRAIN, dev_rows=DEV, resident=Resident(row.loaded()))
    assert_same(tmp_path / "run", row.run("instruction"), names=("best", "last"))


@pytest.mark.parametrize("style", PROMPT_STYLES)
def test_base_and_tuned_answer_in_one_batch(row: Row, style: str) -> None:
    row.resident.load("tuned", row.run(style) / "last")
    both = row.answers(style, "__base__", "tuned")
    assert {answer.finish_reason for answer in both} <= {"stop", "length"}
    assert both[0].text != both[1].text
    for answer in both:
        (alone,) = row.answers(style, answer.label)
        assert (alone.text, alone.tokens) == (answer.text, answer.tokens)


def test_merged_weights_are_base_and_adapter(row: Row, tmp_path: Path) -> None:
    adapter = row.run("chat") / "last"
    result = export_merged(row.folder, adapter, tmp_path / "merged", device="cpu")
    assert result.check.passed
    assert result.check.carries_adapter
    ids = torch.tensor([render_rows(row.base, TRAIN[:1], SETTINGS)[0].ids])
    again = load_base(tmp_path / "merged", device="cpu", dtype="fp32")
    assert again.family is row.base.family
    assert render_rows(again, TRAIN, SETTINGS) == render_rows(row.base, TRAIN, SETTINGS)
    with torch.no_grad():
        expected = load_adapter(row.loaded(), adapter)(input_ids=ids).logits
        torch.testing.assert_close(again.model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        if row.base.family is not CHATGLM:
            plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
            torch.testing.assert_close(plain(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert RunFolder(row.run("chat")).read().base.family == row.name
