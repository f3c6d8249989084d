"""The decoding loop: the same tokens as transformers' `generate`, finish reasons, loops, turns at the gate."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import GlmConfig, GlmForCausalLM, PreTrainedModel

from glmstudio.errors import StudioError
from glmstudio.inference.engine import Column, generate, repeats
from glmstudio.inference.rows import Row
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.loading import load_base
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings, LoraSettings
from tests.scripted import FIRST_BYTE, ByteTokenizer, ScriptedResident
from tests.tiny_families import tiny_tokenizer
from tests.unit.golden_cases import CHATGLM as GOLDEN
from tests.unit.golden_cases import cases

GREEDY = GenerationSettings(max_new_tokens=12, repetition_stop=0)
CHATGLM_PROMPTS = [[29, 191, 376, 44, 117, 381, 384], [30, 381, 384], [40, 41, 142, 243, 381, 384]]
GLM_PROMPTS = [[10, 11, 12, 13, 14], [30], [40, 41, 42, 43]]


def never() -> bool:
    return False


def tiny_chatglm() -> PreTrainedModel:
    return load_base(GOLDEN, device="cpu", dtype="fp32").model


def tiny_glm() -> GlmForCausalLM:
    torch.manual_seed(7)
    return GlmForCausalLM(
        GlmConfig(
            vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, attention_bias=True, initializer_range=0.3,
            bos_token_id=None, eos_token_id=5, pad_token_id=1,
        )
    ).eval()  # fmt: skip


def resident_of(model: PreTrainedModel, targets: tuple[str, ...] = ("query_key_value", "dense")) -> Resident:
    family = SimpleNamespace(name="tiny", target_modules=targets)
    base = SimpleNamespace(
        model=model,
        tokenizer=None,
        family=family,
        source="tiny",
        device=torch.device("cpu"),
        dtype=torch.float32,
        fingerprint="",
    )
    return Resident(base)


def save_adapter(model: PreTrainedModel, targets: tuple[str, ...], folder: Path) -> Path:
    """An adapter as a run leaves it, with weights strong enough to change every answer."""
    resident = resident_of(model, targets)
    torch.manual_seed(1)
    with resident.gate.turn():
        tuned = resident.begin_training(LoraSettings(r=4))
        with torch.no_grad():
            for name, weight in tuned.named_parameters():
                if ".lora_B." in name:
                    weight.normal_(std=0.3)
        tuned.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        resident.end_training()
    return folder


def answers(resident: Resident, rows: list[Row], settings: GenerationSettings) -> tuple[list[list[int]], list[str]]:
    columns = list(generate(resident, rows, settings, should_stop=never))
    ids = [[token for token in row if token is not None] for row in zip(*(c.ids for c in columns), strict=True)]
    return ids, list(columns[-1].finish_reasons)


def generated(model: torch.nn.Module, prompt: list[int], ends: list[int]) -> list[int]:
    """What transformers answers to one prompt alone, without the end token."""
    output = model.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=1
    )
    new = output[0, len(prompt) :].tolist()
    return new[:-1] if new[-1] in ends else new


@pytest.mark.parametrize(
    ("make", "prompts", "targets"),
    [
        (tiny_chatglm, CHATGLM_PROMPTS, ("query_key_value", "dense")),
        (tiny_glm, GLM_PROMPTS, ("q_proj", "v_proj", "down_proj")),
    ],
    ids=["chatglm", "glm"],
)
def test_a_mixed_batch_answers_as_generate_does_row_by_row(
    make: Callable[[], PreTrainedModel], prompts: list[list[int]], targets: tuple[str, ...], tmp_path: Path
) -> None:
    folder = save_adapter(make(), targets, tmp_path / "adapter")
    base, tuned = make(), PeftModel.from_pretrained(make(), str(folder)).eval()
    # Some token in the middle of the first answers ends them, so that rows leave the batch at different steps.
    ends = [generated(base, prompts[0], [])[5], generated(tuned, prompts[0], [])[8]]
    expected = [generated(model, prompt, ends) for prompt in prompts for model in (base, tuned)]
    assert len({len(answer) for answer in expected}) > 2
    assert expected[0] != expected[1]

    resident = resident_of(make(), targets)
    resident.base.model.generation_config.eos_token_id = ends
    resident.load("tuned", folder)
    rows = [Row(prompt, adapter) for prompt in prompts for adapter in (BASE_NAME, "tuned")]
    ids, reasons = answers(resident, rows, GREEDY)
    assert ids == expected
    assert reasons == ["length" if len(answer) == 12 else "stop" for answer in expected]


@pytest.mark.parametrize("name", ["gen_b1_ids_only", "gen_b1_mask_ids_only", "gen_batch_leftpad", "lora_gen_b1"])
def test_the_original_codes_answers(name: str) -> None:
    case = cases()[name]
    resident = Resident(load_base(GOLDEN, device="cpu", dtype="fp32"))
    adapter = BASE_NAME
    if case.get("adapter"):
        adapter = "golden"
        resident.load(adapter, GOLDEN / case["adapter"])
    pad = resident.base.model.config.pad_token_id
    prompts = [row[next(i for i, token in enumerate(row) if token != pad) :] for row in case["input_ids"]]
    ids, _ = answers(resident, [Row(prompt, adapter) for prompt in prompts], GREEDY)
    end = case["eos_token_id"]
    assert ids == [row[: row.index(end)] if end in row else row for row in case["new_tokens"]]


def test_a_sampled_answer_is_the_same_alone_and_leaves_the_global_generator_alone() -> None:
    resident = resident_of(tiny_chatglm())
    settings = GenerationSettings(temperature=1.0, max_new_tokens=12, repetition_stop=0)
    rows = [Row(prompt, BASE_NAME) for prompt in [*CHATGLM_PROMPTS, CHATGLM_PROMPTS[0]]]
    before = torch.get_rng_state()
    together, _ = answers(resident, rows, settings)
    alone, _ = answers(resident, rows[:1], settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert together[0] == alone[0]
    assert together[0] != together[3]  # the same prompt, drawn independently


def scripted(*script: list[int]) -> tuple[ScriptedResident, list[Row]]:
    """A resident that gives the i-th script as the answer to the i-th row, whose prompt is i tokens long."""
    rows = [Row([9] * (place + 1), BASE_NAME) for place in range(len(script))]
    return ScriptedResident(lambda _, prompt: script[len(prompt) - 1]), rows


def test_finish_reasons_and_rows_that_leave_the_batch() -> None:
    resident, rows = scripted([20, 21], [30, 31, 32, 33, 34, 35], [40] * 50, [])
    settings = GenerationSettings(max_new_tokens=5, repetition_stop=0)
    columns = list(generate(resident, rows, settings, should_stop=never))
    assert columns == [
        Column((20, 30, 40, None), ("", "", "", "stop")),
        Column((21, 31, 40, None), ("", "", "", "stop")),
        Column((None, 32, 40, None), ("stop", "", "", "stop")),
        Column((None, 33, 40, None), ("stop", "", "", "stop")),
        Column((None, 34, 40, None), ("stop", "length", "length", "stop")),
    ]
    assert resident.batch_sizes == [4, 3, 3, 2, 2]


def test_a_loop_ends_its_row_only() -> None:
    loop = [*range(50, 60)]
    resident, rows = scripted([11, *loop * 20], [30] * 20 + [31])
    ids, reasons = answers(resident, rows, GenerationSettings(max_new_tokens=100, repetition_stop=3))
    assert ids == [[11, *loop * 3], [30] * 20 + [31]]
    assert reasons == ["repetition", "stop"]


def test_stopping_ends_within_a_token() -> None:
    resident, rows = scripted([20] * 50, [])
    columns: list[Column] = []
    stop = lambda: len(columns) == 3  # noqa: E731
    columns.extend(generate(resident, rows, GenerationSettings(repetition_stop=0), should_stop=stop))
    assert [c.ids for c in columns] == [(20, None)] * 3 + [(None, None)]
    assert columns[-1].finish_reasons == ("cancelled", "stop")
    assert len(resident.batch_sizes) == 3


def test_the_gate_is_free_between_two_tokens() -> None:
    resident = resident_of(tiny_chatglm())
    columns = generate(resident, [Row(CHATGLM_PROMPTS[0], BASE_NAME)], GREEDY, should_stop=never)
    next(columns)
    with resident.gate.turn():
        pass
    assert len(list(columns)) == 11
    assert not resident.base.model.training


def test_numbers_that_overflow_name_the_adapter(tmp_path: Path) -> None:
    targets = ("query_key_value",)
    resident = resident_of(tiny_chatglm(), targets)
    resident.load("broken", save_adapter(tiny_chatglm(), targets, tmp_path))
    for name, weight in resident.base.model.named_parameters():
        if ".lora_B.broken" in name:
            weight.fill_(float("nan"))
    rows = [Row(CHATGLM_PROMPTS[0], name) for name in (BASE_NAME, "broken")]
    with pytest.raises(StudioError) as caught:
        next(generate(resident, rows, GREEDY, should_stop=never))
    assert (caught.value.code, caught.value.params) == ("answer-not-finite", {"adapter": "broken"})


@pytest.mark.parametrize(
    ("ends", "tokenizer_end", "expected"),
    [(5, 5, {5}), ([5, 6], 7, {5, 6, 7}), (None, 7, {7}), ([5], None, {5})],
)
def test_every_end_that_is_known_counts(ends: object, tokenizer_end: int | None, expected: set[int]) -> None:
    tokenizer = None
    if tokenizer_end is not None:
        tokenizer = ByteTokenizer()
        tokenizer.eos_token_id = tokenizer_end
    assert end_ids(tokenizer, FAMILIES["chatglm"], ends) == sorted(expected)


def test_another_roles_token_ends_an_answer() -> None:
    """<|user|> and <|observation|> beside the end of the text; tokens that a vocabulary lacks are nothing."""
    tokenizer = tiny_tokenizer()
    ends = end_ids(tokenizer, FAMILIES["glm4"], 0)
    assert tokenizer.convert_ids_to_tokens(sorted(ends)) == ["<|endoftext|>", "<|user|>", "<|observation|>"]
    assert end_ids(tokenizer, FAMILIES["qwen2"], 0) == [0]


PHRASE = list(range(100, 112))


@pytest.mark.parametrize(
    ("ids", "times", "expected"),
    [
        (PHRASE * 4, 4, True),
        ([7, *PHRASE * 4], 4, True),
        (PHRASE[5:] + PHRASE * 3, 4, False),  # three and a half
        (PHRASE[5:] + PHRASE * 3 + PHRASE[:5], 4, True),  # four times the phrase that begins in its middle
        (PHRASE * 3, 4, False),
        ([*PHRASE * 4, 7], 4, False),  # it went on
        (PHRASE * 9, 0, False),
        ([3] * 31, 4, False),  # a ruler of 31 dashes
        ([3] * 32, 4, True),
        ([3, 4] * 15, 4, False),
        ([3, 4] * 16, 4, True),
        ([], 4, False),
        (PHRASE * 9, 1, False),
    ],
)
def test_repeats(ids: list[int], times: int, expected: bool) -> None:
    assert repeats(ids, times) is expected


def test_a_long_list_of_alike_triples_is_no_loop() -> None:
    """Same keys, predicate and types in each of 40 triples, other objects: only an exact repetition counts."""
    alike = {"predicate": "主演", "object_type": "人物", "subject_type": "影视作品", "subject": "喜剧之王"}
    triples = [alike | {"object": f"演员{n}"} for n in range(40)]
    ids = [FIRST_BYTE + byte for byte in json.dumps(triples, ensure_ascii=False).encode()]
    assert not any(repeats(ids[:length], 4) for length in range(len(ids) + 1))
    same = [FIRST_BYTE + byte for byte in json.dumps(triples[:1] * 5, ensure_ascii=False).encode()]
    assert any(repeats(same[:length], 4) for length in range(len(same) + 1))
