"""Rows in slots: every family answers as `generate` does, rows come and go, adapters of every form, training beside."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from glmstudio.inference import engine
from glmstudio.inference.engine import Finished, answers
from glmstudio.inference.rows import Row
from glmstudio.inference.slotted import SlottedRows
from glmstudio.models import mixed_rows, packed_weights, slots
from glmstudio.models.base import Base
from glmstudio.models.loading import load_base
from glmstudio.models.packed_weights import PackedWeights
from glmstudio.models.processor import has_fast_bfloat16
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.models.slots import Slots, Step, arranged
from glmstudio.settings import GenerationSettings, LoraSettings
from tests.tiny_families import QUIRKS, native_folder
from tests.unit.golden_cases import CHATGLM, CHATGLM3

GREEDY = GenerationSettings(max_new_tokens=10, repetition_stop=0)
PROMPTS = [list(range(20, 20 + length)) for length in (9, 31, 4, 17, 25, 3, 12)]
CHATGLM_PROMPTS = [[*range(29, 29 + length), 381, 384] for length in (5, 1, 3, 8, 2, 4, 6)]


def never() -> bool:
    return False


def endless(folder: Path) -> Base:
    """A base whose answers no token ends."""
    base = load_base(folder, device="cpu", dtype="float32")
    base.model.generation_config.eos_token_id = None
    return dataclasses.replace(base, tokenizer=None)


def adapter(model: torch.nn.Module, folder: Path, seed: int, **config: object) -> Path:
    """An adapter with weights strong enough to change every answer; `model` is wrapped in place."""
    torch.manual_seed(seed)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if ".lora_B." in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def generated(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    wish = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        return model.generate(input_ids=torch.tensor([prompt]), **wish)[0, len(prompt) :].tolist()


def answered(
    resident: Resident, rows: list[Row], max_rows: int, settings: GenerationSettings = GREEDY
) -> list[Finished]:
    found = list(answers(resident, rows, settings, max_rows=max_rows, should_stop=never))
    return sorted(found, key=lambda answer: answer.number)


@pytest.mark.parametrize("family", [*QUIRKS, "windowed"])
def test_every_family_answers_as_generate_does_while_rows_come_and_go(family: str, tmp_path: Path) -> None:
    """Five places for fourteen rows; gemma3's window is 16 tokens, "windowed" is a mistral with one of 8. Those
    with latent attention answer in padded batches."""
    folder = native_folder("mistral" if family == "windowed" else family, tmp_path / "base")

    def base() -> Base:
        made = endless(folder)
        if family == "windowed":
            made.model.config.sliding_window = 8
            for layer in made.model.model.layers:
                layer.self_attn.sliding_window = 8
        return made

    plain = base().model
    tuned = base().model
    latent = "q_b_proj" in {path.rpartition(".")[2] for path, _ in tuned.named_modules()}
    layers = ["q_b_proj", "kv_b_proj", "o_proj"] if latent else ["q_proj", "v_proj", "o_proj"]
    saved = adapter(tuned, tmp_path / "a", 1, r=4, target_modules=layers)
    tuned = PeftModel.from_pretrained(base().model, str(saved)).eval()
    resident = Resident(base())
    resident.load("run", saved)
    names = (BASE_NAME, "run")
    rows = [Row(prompt, name) for prompt in PROMPTS for name in names]
    expected = [generated(model, prompt) for prompt in PROMPTS for model in (plain, tuned)]
    assert expected[0] != expected[1]
    for places in (5, len(rows)):
        found = answered(resident, rows, places)
        assert [answer.ids for answer in found] == expected
        assert {answer.finish_reason for answer in found} == {"length"}


def test_a_model_with_an_attention_of_its_own_answers_in_padded_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "can_pack", lambda config: False)
    folder = native_folder("qwen2", tmp_path / "base")
    saved = adapter(endless(folder).model, tmp_path / "a", 1, r=4, target_modules=["q_proj", "v_proj"])
    resident = Resident(endless(folder))
    resident.load("run", saved)
    models = {BASE_NAME: endless(folder).model, "run": PeftModel.from_pretrained(endless(folder).model, str(saved))}
    rows = [Row(prompt, name) for prompt in PROMPTS for name in models]
    assert [answer.ids for answer in answered(resident, rows, 5)] == [
        generated(models[row.adapter].eval(), row.ids) for row in rows
    ]


@pytest.mark.parametrize(("golden", "family"), [(CHATGLM, "two rows of positions"), (CHATGLM3, "glm")])
def test_prefixes_and_lora_share_the_slots(golden: Path, family: str) -> None:
    resident = Resident(load_base(golden, device="cpu", dtype="float32"))
    names = {BASE_NAME: None, "lora": golden / "lora_adapter", "prefix": golden / "ptuning"}
    for name, folder in names.items():
        if folder is not None:
            resident.load(name, folder)
    rows = [Row(prompt, name) for prompt in CHATGLM_PROMPTS for name in names]
    together = answered(resident, rows, 4)
    alone = [answered(resident, [row], 1)[0].ids for row in rows]
    assert [answer.ids for answer in together] == alone
    assert len({tuple(ids) for ids in alone[:3]}) == 3


@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "target_modules": ["query_key_value"], "use_rslora": True, "lora_alpha": 5},
        {"target_modules": ["query_key_value", "dense"], "rank_pattern": {"dense": 2}, "alpha_pattern": {"dense": 9}},
        {"r": 4, "target_modules": ["query_key_value"], "lora_bias": True},
        {"r": 4, "target_modules": ["query_key_value"], "modules_to_save": ["lm_head"]},
    ],
    ids=["rslora", "patterns", "lora_bias", "modules_to_save"],
)  # fmt: skip
def test_adapters_of_every_form_answer_beside_a_plain_one(config: dict[str, object], tmp_path: Path) -> None:
    folders = {
        "special": adapter(endless(CHATGLM).model, tmp_path / "special", 1, **config),
        "plain": adapter(endless(CHATGLM).model, tmp_path / "plain", 2, r=2, target_modules=["dense"]),
    }
    resident = Resident(endless(CHATGLM))
    models = {BASE_NAME: endless(CHATGLM).model}
    for name, folder in folders.items():
        resident.load(name, folder)
        models[name] = PeftModel.from_pretrained(endless(CHATGLM).model, str(folder)).eval()
    rows = [Row(prompt, name) for prompt in CHATGLM_PROMPTS[:3] for name in models]
    expected = [generated(models[row.adapter], row.ids) for row in rows]
    assert len({tuple(ids) for ids in expected[: len(models)]}) == len(models)
    assert [answer.ids for answer in answered(resident, rows, 4)] == expected


class Passes(Resident):
    """Keeps how many tokens of each row every pass of the prompts had."""

    def __init__(self, base: Base) -> None:
        super().__init__(base)
        self.lengths: list[tuple[int, ...]] = []

    def forward_slots(self, adapter_names: list[str], packing: slots.Entering | Step, **inputs: object) -> object:
        if isinstance(packing, slots.Entering):
            self.lengths.append(packing.lengths)
        return super().forward_slots(adapter_names, packing, **inputs)


def test_what_rows_of_an_adapter_begin_with_alike_is_computed_once() -> None:
    resident = Passes(load_base(CHATGLM3, device="cpu", dtype="float32"))
    for name, folder in (("lora", "lora_adapter"), ("prefix", "ptuning")):
        resident.load(name, CHATGLM3 / folder)
    task, other_task = [*range(20, 40)], [*range(60, 100)]
    prompts = [[*task, 50, 51], [*task, 52], [*other_task, 53], [*task, *other_task, 54], [*task, *other_task, 55, 56]]
    rows = [Row(prompt, name) for prompt in prompts for name in (BASE_NAME, "lora", "prefix")]
    expected = [answered(resident, [row], 1)[0].ids for row in rows]
    resident.lengths.clear()
    assert [answer.ids for answer in answered(resident, rows, len(rows))] == expected
    # The longest of each adapter and the one that begins like no other; what begins as the longest one does.
    assert resident.lengths == [(62, 40 + 1) * 3, (1, 2, 1) * 3]
    resident.lengths.clear()
    # One place for each: what comes later finds those that are at work or nobody.
    assert [answer.ids for answer in answered(resident, rows[:6], 4)] == expected[:6]
    assert sum(map(sum, resident.lengths)) < sum(len(row.ids) for row in rows[:6])


def test_where_tokens_see_later_ones_nothing_is_shared() -> None:
    resident = Passes(load_base(CHATGLM, device="cpu", dtype="float32"))
    rows = [Row([*range(30, 60), last, 381, 384], BASE_NAME) for last in (70, 71)]
    answered(resident, rows, 2)
    assert resident.lengths == [(33, 33)]


@pytest.mark.parametrize("lengths", [[5, 5, 5, 5], [9, 7, 2, 3]])
@pytest.mark.parametrize("window", [None, 4])
def test_half_numbers_with_keys_of_their_own_attend_as_exact_ones(
    lengths: list[int], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "COPIED_ELEMENTS", 2 * 2 * 10 * 8)
    torch.manual_seed(0)
    states = torch.randn(3, 4, 2, 10, 8).bfloat16()
    for key_heads in (2, 1):  # With one for two heads nothing is copied.
        results = []
        for dtype in (torch.bfloat16, torch.float32):
            rooms = Slots(4)
            for place, length in enumerate(lengths):
                rooms.put(place, states[None, :2, place, :key_heads, :length].to(dtype))
            rooms.lengths = list(lengths)
            step = Step(rooms, torch.device("cpu"))
            query, new = states[2, :, :, :1].to(dtype), states[:2, :, :key_heads, -1:].to(dtype)
            results.append(step.attend(query, *step.update(*new, 0), 0.3, window, 0.0))
            assert results[-1].dtype == dtype
        torch.testing.assert_close(results[0].float(), results[1], rtol=0.02, atol=0.02)


def test_an_adapter_in_training_is_not_heard_and_its_layers_are_left_as_they_were(tmp_path: Path) -> None:
    base = endless(CHATGLM)
    resident = Resident(base)
    row = Row(CHATGLM_PROMPTS[0], BASE_NAME)
    (before,) = answered(resident, [row], 1)
    with resident.gate.turn():
        model = resident.begin_training(LoraSettings(r=4))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if ".lora_B." in name:
                    weight.normal_()
        own = SimpleNamespace()
        layer = base.model.transformer.layers[0].attention.query_key_value
        layer.forward = own
        model.train()
    state = torch.get_rng_state()
    assert answered(resident, [row], 1) == [before]
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.__dict__["forward"] is own
    assert not any("forward" in vars(module) for module in base.model.modules() if module is not layer)
    assert model.training


@pytest.mark.parametrize("well", [True, False])
def test_rows_go_through_onednn_to_the_same_numbers(well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_rows, "multiplies_well", lambda: well)
    linear = torch.nn.Linear(256, 256)
    inputs = torch.randn(3, 5, 256)
    with torch.no_grad():
        torch.testing.assert_close(mixed_rows._onednn(linear, linear.weight, inputs), linear(inputs))
        few = mixed_rows._onednn(linear, linear.weight, inputs[:, :2])
        torch.testing.assert_close(few, linear(inputs[:, :2]), rtol=0 if well else 1.3e-6, atol=0 if well else 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_filled_up_give_the_same_numbers(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_rows, "FEWEST_WEIGHTS_FILLED_UP", 1)
    monkeypatch.setattr(mixed_rows, "multiplies_well", lambda: False)
    linear = torch.nn.Linear(64, 32)
    inputs = torch.randn(rows, 1, 64)
    with torch.no_grad():
        copy = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        torch.testing.assert_close(mixed_rows._onednn(linear, copy, inputs), linear(inputs))


def test_answers_in_bfloat16_read_copies_of_the_weights_except_while_a_run_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_rows, "FEWEST_WEIGHTS", 1)
    folder = native_folder("qwen2", tmp_path / "base")
    saved = adapter(endless(folder).model, tmp_path / "a", 1, r=4, target_modules=["q_proj", "v_proj"])
    resident = Resident(load_base(folder, device="cpu", dtype="bfloat16"))
    resident.load("run", saved)

    def first_logits() -> torch.Tensor:
        work = SlottedRows(resident, 2)
        numbers, entered = work.enter([(0, Row(PROMPTS[0], BASE_NAME)), (1, Row(PROMPTS[1], "run"))])
        work.take([30] * len(numbers))
        return torch.cat((entered, work.step()))

    copied = first_logits()
    layers = [module for module in resident.base.model.modules() if mixed_rows._gains(module)]
    weights = [layer.weight for layer in layers if layer.weight.dtype == torch.bfloat16]
    assert bool(weights) is has_fast_bfloat16()
    assert all(resident._packed.of(weight) is not weight for weight in weights)
    with resident.gate.turn():
        resident.begin_training(LoraSettings(r=4))
    assert all(resident._packed.of(weight) is weight for weight in weights)
    torch.testing.assert_close(first_logits(), copied, atol=0.02 * copied.abs().max().item(), rtol=0)
    with resident.gate.turn():
        resident.end_training()
    assert torch.equal(first_logits(), copied)


def test_no_copy_of_a_weight_is_made_where_it_gains_nothing_or_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(64, 64)
    for well in (True, False):
        monkeypatch.setattr(packed_weights, "multiplies_well", lambda well=well: well)
        assert (PackedWeights().of(weight) is weight) == well
    monkeypatch.setattr(packed_weights, "free_memory", lambda device: 64 * 64 * 2)
    half = weight.bfloat16()
    assert PackedWeights().of(half) is half


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([("a", None), ("b", None), ("a", None)], [0, 2, 1]),
        ([("a", 0), ("a", 1), ("b", 2), ("b", 3)], [0, 1, 2, 3]),
        ([("a", 1), ("b", 2), ("b", 3)], [0, 2, 1]),  # one moves, the others stay
        ([("a", 0), ("b", 1), ("b", 2), ("a", None)], [0, 3, 2, 1]),
        ([("b", 0), ("b", 1)], [0, 1]),
    ],
)
def test_rows_of_a_kind_lie_side_by_side_and_few_move(wanted: list, places: list[int]) -> None:
    assert arranged(wanted, ["a", "b"]) == places


def test_states_move_as_if_all_at_once() -> None:
    slots = Slots(3)
    slots.lengths = [2, 2, 2]
    for place in range(3):
        slots.put(place, torch.full((1, 2, 1, 2, 4), float(place)))
    slots.move([(0, 1), (1, 2), (2, 0)])
    assert [slots.states(place).unique().tolist() for place in range(3)] == [[2.0], [0.0], [1.0]]
