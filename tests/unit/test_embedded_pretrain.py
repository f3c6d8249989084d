"""Initialisation and pre-training of the embedded base, on a few steps of a short recipe."""

import json
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from glmstudio.embedded.initialise import initialise
from glmstudio.embedded.pretrain import (
    Recipe,
    answer_loss,
    batches,
    collate,
    configuration,
    encode_row,
    learning_rate,
    pretrain,
)
from glmstudio.embedded.vocabulary import TextCodec, build_model
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.loading import load_base

SHORT = Recipe(steps=2, tokens_per_step=400, block_rows=12, warmup_steps=1, longest=200)


@pytest.fixture(scope="module")
def codec():
    return TextCodec(build_model())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    pretrain(SHORT, folder, autocast=False, save_every=1, report_every=1)
    return folder


def test_a_fresh_model_already_finds_the_token_after_an_earlier_one(codec):
    model = ChatGLMForConditionalGeneration(configuration(codec)).eval()
    initialise(model, 1)
    text = "鹂瑾恪阙璐渥岐旖泓"
    batch = collate([encode_row(codec, ("", text, text))], codec.pad)
    with torch.no_grad():
        hidden = model.transformer(batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
    ranks = []
    for place, label in zip(batch.where.tolist()[2:-1], batch.labels.tolist()[2:-1], strict=True):
        logits = model.lm_head(hidden[0, place])
        ranks.append(int((logits > logits[label]).sum()))
    assert sorted(ranks)[len(ranks) // 2] <= 3, ranks


def test_targets_are_what_follows_the_prompt(codec):
    ids, start = encode_row(codec, ("按要求回答。", "甲和乙", "乙"))
    assert codec.decode(ids[:start]) == "Instruction: 按要求回答。\nInput: 甲和乙\nAnswer: "
    assert ids[start:] == [codec.gmask, codec.sop, *codec.encode("乙"), codec.eop]
    batch = collate([(ids, start), ([codec.gmask, codec.sop, codec.eop], 0)], codec.pad)
    assert batch.labels.tolist() == [*ids[start + 1 :], codec.sop, codec.eop]
    assert batch.ids.flatten()[batch.where + 1].tolist() == batch.labels.tolist()
    assert batch.mask.sum(-1).tolist() == [len(ids), 3]


def test_the_loss_is_the_one_of_the_model_itself(codec):
    model = ChatGLMForConditionalGeneration(configuration(codec)).eval()
    batch = next(batches(codec, SHORT, 1))
    labels = torch.full_like(batch.ids, -100)
    labels.view(-1)[batch.where + 1] = batch.labels
    own = model(batch.ids, attention_mask=batch.mask, labels=labels).loss
    torch.testing.assert_close(answer_loss(model, batch)[0], own, atol=1e-5, rtol=0)


def test_batches_depend_on_the_seed_alone_and_keep_their_size(codec):
    first = list(islice(batches(codec, SHORT, 1), 12))
    again = list(islice(batches(codec, SHORT, 1), 12))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].ids, next(batches(codec, SHORT, 2)).ids)
    assert all(batch.ids.numel() <= SHORT.tokens_per_step or len(batch.ids) == 1 for batch in first)
    assert max(batch.ids.shape[1] for batch in first) <= SHORT.longest


def test_the_rate_warms_up_stays_and_falls():
    recipe = Recipe(steps=1000, warmup_steps=10)
    assert learning_rate(recipe, 0) == pytest.approx(recipe.learning_rate / 10)
    assert learning_rate(recipe, 10) == learning_rate(recipe, 600) == recipe.learning_rate
    assert learning_rate(recipe, 1000) == pytest.approx(recipe.learning_rate * recipe.last_share)


def test_the_folder_loads_as_a_base_and_knows_its_recipe(trained, codec):
    base = load_base(trained, device="cpu", dtype="fp32")
    assert base.family.name == "chatglm"
    assert base.model.config.residual_alpha == pytest.approx(8**0.5)
    assert base.model.lm_head.weight is base.model.transformer.word_embeddings.weight
    assert base.tokenizer.encode("甲，乙", add_special_tokens=False) == codec.encode("甲，乙")
    assert json.loads((trained / "recipe.json").read_text())["step"] == 2
    assert base.model.generation_config.eos_token_id == codec.eop


def test_the_same_seed_gives_the_same_weights_and_another_round_goes_on(trained, tmp_path):
    pretrain(SHORT, tmp_path / "again", autocast=False, save_every=2, report_every=1)
    one, two = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    still = replace(SHORT, steps=1, learning_rate=0.0)
    pretrain(still, tmp_path / "more", start_from=trained, autocast=False, save_every=1, report_every=1)
    more = load_file(tmp_path / "more" / "model.safetensors")
    assert all(torch.equal(one[name], more[name]) for name in one)
