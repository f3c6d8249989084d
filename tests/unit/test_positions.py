"""How many positions a base has: told by the check, kept by every answer."""

import dataclasses

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from glmstudio.inference.engine import answers, generate
from glmstudio.inference.rows import Row
from glmstudio.models.base import Base
from glmstudio.models.families.table import family_of
from glmstudio.models.positions import Positions, positions_of
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings
from tests.tiny_base import rows
from tests.tiny_families import tiny_tokenizer
from tests.train.runs import checked

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
OPT = {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 48}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 48, "rope_theta": 10000.0}
GREEDY = GenerationSettings(max_new_tokens=60, repetition_stop=0)


def base_of(model_type: str, **sizes: object) -> Base:
    torch.manual_seed(7)
    ids = {"vocab_size": len(tiny_tokenizer()), "eos_token_id": None, "pad_token_id": 0, "bos_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes, **ids)).eval()
    # Nothing ends an answer but its limits.
    model.generation_config.eos_token_id = None
    family = dataclasses.replace(family_of({"model_type": model_type}, "tiny"), stop_tokens=())
    return Base(model, None, family, "tiny", torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("model_type", "sizes", "expected"),
    [
        ("opt", OPT, Positions(48, table=True)),
        ("gpt2", GPT2, Positions(48, table=True)),
        ("gptj", GPT2 | {"rotary_dim": 4}, Positions(48, table=True)),
        ("roberta", SIZES | {"max_position_embeddings": 48}, Positions(46, table=True)),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 48}, Positions(48, table=True)),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, Positions(0, table=False)),
        ("llama", SIZES | {"max_position_embeddings": 48}, Positions(48, table=False)),
        ("llama", SIZES | {"max_position_embeddings": 48, "rope_parameters": YARN}, Positions(192, table=False)),
    ],
)
def test_the_positions_of_a_base_are_those_that_it_can_take(model_type, sizes, expected) -> None:
    base = base_of(model_type, **sizes)
    if model_type == "roberta":
        base.model.config.pad_token_id = 1
        sizes = sizes | {"pad_token_id": 1}
    found = positions_of(base.model)
    assert found.table == expected.table
    if found.limit and found.table:
        base.model(input_ids=torch.full((1, found.limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            base.model(input_ids=torch.full((1, found.limit + 1), 5))
    if model_type != "roberta":
        assert found == expected


@pytest.mark.parametrize(("model_type", "sizes"), [("opt", OPT), ("llama", SIZES | {"max_position_embeddings": 48})])
def test_answers_end_where_the_positions_do(model_type, sizes) -> None:
    resident = Resident(base_of(model_type, **sizes))
    prompts = [list(range(10, 10 + length)) for length in (40, 5, 48, 50)]
    asked = [Row(ids, BASE_NAME) for ids in prompts]
    ended = {
        answer.number: (len(answer.ids), answer.finish_reason)
        for answer in answers(resident, asked, GREEDY, max_rows=4, should_stop=lambda: False)
    }
    # What the table cannot count gets no answer; a rotary base is asked all the same.
    beyond = (0, "positions") if model_type == "opt" else (60, "length")
    assert ended == {0: (8, "positions"), 1: (43, "positions"), 2: beyond, 3: beyond}
    *_, last = generate(resident, [asked[3], asked[0]], GREEDY, should_stop=lambda: False)
    assert last.finish_reasons == (beyond[1], "positions")


def test_rows_beyond_the_positions_are_an_error_or_a_warning() -> None:
    settings = TrainingSettings(max_source_length=3000)
    for model_type, sizes, found in (
        ("opt", OPT | {"max_position_embeddings": 24}, ("positions-missing", "error")),
        ("llama", SIZES | {"max_position_embeddings": 24}, ("positions-beyond", "warning")),
    ):
        base = dataclasses.replace(base_of(model_type, **sizes), tokenizer=tiny_tokenizer())
        (finding,) = (
            item for item in checked(base, rows(8), [], LoraSettings(), settings) if item.code.startswith("positions")
        )
        assert (finding.code, finding.severity) == found
        assert finding.params["limit"] == 24 < finding.params["most"]
        assert 0 < finding.count == len(finding.rows) <= 8
        longer = base_of(model_type, **sizes | {"max_position_embeddings": 512})
        whole = dataclasses.replace(longer, tokenizer=tiny_tokenizer())
        assert not [
            item for item in checked(whole, rows(8), [], LoraSettings(), settings) if item.code.startswith("positions")
        ]


def test_a_base_with_states_of_its_own_answers_row_by_row() -> None:
    kinds = ["linear_attention", "full_attention"]
    sizes = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "layer_types": kinds, "max_position_embeddings": 512}
    small = {
        "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    }  # fmt: skip
    base = base_of("qwen3_next", **sizes, **small)
    prompts = [[11, 12, 13, 14], [21, 22], [31, 32, 33]]
    settings = GenerationSettings(max_new_tokens=5, repetition_stop=0)
    resident = Resident(base)
    asked = [Row(ids, BASE_NAME) for ids in prompts]
    ours = {
        answer.number: answer.ids
        for answer in answers(resident, asked, settings, max_rows=64, should_stop=lambda: False)
    }
    for number, ids in enumerate(prompts):
        theirs = base.model.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False)[0, len(ids) :]
        assert ours[number] == theirs.tolist()
