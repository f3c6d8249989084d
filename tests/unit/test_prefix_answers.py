"""Prefixes on the resident base: one batch with LoRA and base rows, coming and going, answers of the original code."""

import shutil
from pathlib import Path

import pytest
import torch

from glmstudio.errors import StudioError
from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.adapters.adapter_shelf import KEPT_ADAPTERS
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.adapters.prefix import PrefixEncoder, PrefixModel, PrefixShape
from glmstudio.models.adapters.prefix_files import load_prefix, write_prefix
from glmstudio.models.base import Base
from glmstudio.models.loading import load_base
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from tests.unit.golden_cases import CHATGLM, CHATGLM2, CHATGLM3, assert_close, cases, tensor

GREEDY = GenerationSettings(max_new_tokens=12, repetition_stop=0)
SETS = pytest.mark.parametrize("golden", [CHATGLM, CHATGLM2, CHATGLM3], ids=lambda folder: folder.name)
ENDINGS = {CHATGLM: ([], [381, 384]), CHATGLM2: ([381, 383], []), CHATGLM3: ([397, 399], [])}


def base_of(golden: Path) -> Base:
    return load_base(golden, device="cpu", dtype="float32")


def prompts_of(golden: Path) -> list[list[int]]:
    before, behind = ENDINGS[golden]
    return [[*before, *ids, *behind] for ids in ([29, 191, 376, 44, 117], [30], [40, 41, 142, 243])]


def long_prefix(base: Base, folder: Path) -> Path:
    """A strong projected prefix of 13 tokens, so that the lengths in a batch differ."""
    torch.manual_seed(1)
    encoder = PrefixEncoder(PrefixShape.of(base.model.config, base.source), 13, projection=True)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.mul_(2)
    folder.mkdir()
    write_prefix(PrefixModel(base, encoder), folder)
    return folder


def answers(resident: Resident, rows: list[Row]) -> list[list[int]]:
    columns = list(generate(resident, rows, GREEDY, should_stop=lambda: False))
    return [[token for token in row if token is not None] for row in zip(*(c.ids for c in columns), strict=True)]


def alone(golden: Path, adapter: Path | None, prompt: list[int], ends: list[int]) -> list[int]:
    """What transformers' generate answers to one prompt on a base of its own, without the end token."""
    base = base_of(golden)
    model = base.model if adapter is None else load_adapter(base, adapter)
    wish = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
    new = model.generate(input_ids=torch.tensor([prompt]), **wish)[0, len(prompt) :].tolist()
    return new[:-1] if new[-1] in ends else new


@SETS
def test_base_lora_and_prefixes_answer_in_one_batch_as_each_does_alone(golden: Path, tmp_path: Path) -> None:
    base = base_of(golden)
    adapters = {
        BASE_NAME: None,
        "lora": golden / "lora_adapter",
        "short": golden / "ptuning",
        "long": long_prefix(base, tmp_path / "long"),
    }
    resident = Resident(base)
    for name, folder in adapters.items():
        if folder is not None:
            resident.load(name, folder)
    # Tokens in the middle of some answers end them, so that rows leave the batch at different steps.
    prompts = prompts_of(golden)
    ends = [alone(golden, adapters["short"], prompts[0], [])[6], alone(golden, None, prompts[1], [])[4]]
    resident.base.model.generation_config.eos_token_id = ends
    rows = [Row(prompt, name) for prompt in prompts for name in adapters]
    expected = [alone(golden, adapters[row.adapter], row.ids, ends) for row in rows]
    assert len({tuple(answer) for answer in expected[:4]}) == 4
    assert len({len(answer) for answer in expected}) > 2
    assert answers(resident, rows) == expected
    assert answers(resident, rows[2:3]) == expected[2:3]
    assert answers(resident, [rows[6], rows[2]]) == [expected[6], expected[2]]


@SETS
def test_the_original_codes_answers(golden: Path) -> None:
    case = cases(golden)["ptuning_gen_b1"]
    resident = Resident(base_of(golden))
    resident.load("golden", golden / "ptuning")
    (ids,) = answers(resident, [Row(case["input_ids"][0], "golden")])
    (expected,) = case["new_tokens"]
    end = case["eos_token_id"]
    assert ids == (expected[: expected.index(end)] if end in expected else expected)


def test_prefixes_count_among_the_kept_adapters_and_are_read_again_when_they_change(tmp_path: Path) -> None:
    resident = Resident(base_of(CHATGLM))
    folder = tmp_path / "best"
    shutil.copytree(CHATGLM / "ptuning", folder)
    resident.load("first", folder)
    (before,) = resident.prefixes(["first"])
    assert before.shape == (3, 2, 4, 8, 16)
    resident.load("first", folder)
    assert resident.prefixes(["first"])[0] is before
    shutil.rmtree(folder)
    long_prefix(resident.base, folder)
    resident.load("first", folder)
    assert resident.prefixes(["first"])[0].shape[-2] == 13
    for number in range(KEPT_ADAPTERS):
        resident.load(f"run@{number}", CHATGLM / ("ptuning" if number % 2 else "lora_adapter"))
    assert resident.prefixes(["first"]) == [None]
    with pytest.raises(KeyError):
        answers(resident, [Row(prompts_of(CHATGLM)[0], "first")])
    # A name may change its kind.
    resident.load("run@1", CHATGLM / "lora_adapter")
    assert resident.prefixes(["run@1"]) == [None]
    resident.load("run@0", CHATGLM / "ptuning")
    assert resident.prefixes(["run@0", BASE_NAME])[0] is not None
    with pytest.raises(StudioError, match="adapter-other-family"):
        resident.load("run@0", CHATGLM2 / "ptuning")
    assert resident.prefixes(["run@0"]) == [None]


def test_a_prefix_in_training_leaves_no_trace_and_hears_no_lora(tmp_path: Path) -> None:
    """Its pass is the base's alone, while the finished adapters answer as ever, in any mode."""
    resident = Resident(base_of(CHATGLM))
    case = cases()["ptuning_b1_gmask_target"]
    ids = tensor(case["input_ids"])
    resident.load("lora", CHATGLM / "lora_adapter")
    tuned = resident.forward(["lora"], input_ids=ids).logits
    with resident.gate.turn():
        model = load_prefix(resident.base, CHATGLM / "ptuning")
        model.train()
    resident.load("another", CHATGLM / "lora_adapter")
    assert torch.equal(resident.forward(["lora"], input_ids=ids).logits, tuned)
    assert resident.base.model.training
    model.eval()
    with torch.no_grad():
        assert_close(model(ids).logits, tensor(case["logits"]))
    assert torch.equal(resident.forward(["another"], input_ids=ids).logits, tuned)
    assert not resident.base.model.training
    assert not any(weight.requires_grad for weight in resident.base.model.parameters())
    with resident.gate.turn():
        resident.begin_training(LoraSettings(r=2))
        resident.end_training()
