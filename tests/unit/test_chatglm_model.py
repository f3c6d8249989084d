"""The ChatGLM-6B port against the original's numbers, and what it adds: 2-D masks, caches, checkpointing, saving."""

import json

import pytest
import torch
from transformers import Trainer, TrainingArguments

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.chatglm.positions import attention_bias, next_position_ids, position_ids_for
from glmstudio.models.loading import load_base
from tests.unit.golden_cases import (
    CHATGLM,
    CHATGLM_FP16,
    PAD,
    assert_close,
    assert_forward,
    assert_generates,
    assert_trains,
    cases,
    names,
    tensor,
    valid_rows,
)


@pytest.fixture(params=["sdpa", "eager"])
def model(request) -> ChatGLMForConditionalGeneration:
    model = load_base(CHATGLM, device="cpu", dtype="float32").model
    model.set_attn_implementation(request.param)
    return model


@pytest.mark.parametrize("name", names("forward"))
def test_logits_are_the_originals(model, name):
    assert_forward(model, cases()[name])


@pytest.mark.parametrize("name", [name for name in names("forward") if "computed_position_ids" in cases()[name]])
def test_positions_and_mask_are_the_originals(name):
    case, config = cases()[name], ChatGLMConfig.from_pretrained(CHATGLM)
    ids = tensor(case["input_ids"])
    positions = position_ids_for(ids, None, config)
    assert torch.equal(positions, tensor(case["computed_position_ids"]))
    bias = attention_bias(positions, None, ids.shape[1], torch.float32)
    assert torch.equal(bias < 0, tensor(case["computed_attention_mask"]))


@pytest.mark.parametrize("name", [name for name in names("forward") if "valid" in cases()[name]])
def test_a_2d_mask_does_what_the_original_mask_and_positions_do(model, name):
    case = cases()[name]
    keep = valid_rows(case)
    assert_forward(model, case | {"attention_mask": keep.long().tolist(), "position_ids": None})
    positions = position_ids_for(tensor(case["input_ids"]), keep, model.config)
    assert torch.equal(positions, tensor(case["position_ids"]))


@pytest.mark.parametrize("name", [name for name in names("forward") if "attentions" in cases()[name]])
def test_hidden_states_attentions_and_cache_are_the_originals(model, name):
    case = cases()[name]
    keep = valid_rows(case)
    with torch.no_grad():
        output = model(
            input_ids=tensor(case["input_ids"]),
            attention_mask=tensor(case["attention_mask"]),
            position_ids=tensor(case["position_ids"]),
            output_hidden_states=True,
            output_attentions=True,
        )
    assert len(output.hidden_states) == len(case["hidden_states"])
    for actual, stored in zip(output.hidden_states, case["hidden_states"], strict=True):
        assert_close(actual[keep], tensor(stored).transpose(0, 1)[keep])
    for actual, stored in zip(output.attentions, case["attentions"], strict=True):
        assert_close(actual.transpose(1, 2)[keep], tensor(stored).view_as(actual).transpose(1, 2)[keep])
    layer = output.past_key_values.layers[0]
    for actual, stored in ((layer.keys, "past_key_0"), (layer.values, "past_value_0")):
        assert_close(actual.transpose(1, 2)[keep], tensor(case[stored]).transpose(0, 1)[keep])


@pytest.mark.parametrize("name", names("train"))
def test_loss_and_gradients_are_the_originals(model, name):
    assert_trains(model, cases()[name])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", names("generate"))
def test_greedy_answers_are_the_originals(model, name, use_cache):
    assert_generates(model, cases()[name], use_cache=use_cache)


@pytest.mark.parametrize("name", list(cases(CHATGLM_FP16)))
def test_half_precision_weights(name):
    case = cases(CHATGLM_FP16)[name]
    ids = tensor(case["input_ids"], CHATGLM_FP16)
    mask, positions = (tensor(case[key], CHATGLM_FP16) for key in ("attention_mask", "position_ids"))
    keep = torch.ones_like(ids, dtype=torch.bool) if mask is None else ids != PAD
    for dtype, stored, worst, rms in (
        ("fp32", "logits_fp32_compute", 1e-4, 1.2e-5),
        ("fp16", "logits_fp16_compute", 4e-2, 6e-3),
    ):
        model = load_base(CHATGLM_FP16, device="cpu", dtype=dtype).model
        with torch.no_grad():
            logits = model(ids, attention_mask=mask, position_ids=positions).logits
        assert_close(logits[keep], tensor(case[stored], CHATGLM_FP16)[keep], worst=worst, rms=rms)


def _padded_batch(side: str) -> dict[str, torch.Tensor]:
    """The rows of a training case, pads on one side and a 2-D mask."""
    case = cases()["train_batch_rightpad"]
    ids, labels = tensor(case["input_ids"]), tensor(case["labels"])
    mask = (ids != PAD).long()
    if side == "left":
        turn = [(row, int(kept.sum())) for row, kept in enumerate(mask)]
        ids, labels, mask = (torch.stack([t[row].roll(-n) for row, n in turn]) for t in (ids, labels, mask))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def test_pads_on_the_left_train_like_pads_on_the_right(model):
    results = {}
    for side in ("right", "left"):
        model.zero_grad()
        batch = _padded_batch(side)
        loss = model(**batch).loss
        loss.backward()
        results[side] = loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])
    assert batch["attention_mask"][:, 0].min() == 0
    assert abs(results["left"][0] - cases()["train_batch_rightpad"]["loss"]) < 1e-5
    assert abs(results["left"][0] - results["right"][0]) < 1e-5
    assert_close(results["left"][1], results["right"][1], worst=1e-5, rms=1e-6)


def test_a_mask_of_ones_is_no_mask(model):
    ids = tensor(cases()["batch_leftpad_ids_only"]["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids, attention_mask=torch.ones_like(ids)).logits)


def test_no_nan_where_a_row_hides_everything(model):
    case = cases()["batch_leftpad"]
    ids, mask = tensor(case["input_ids"]), tensor(case["attention_mask"])
    assert mask.all(-1).any()
    model.zero_grad()
    output = model(ids, attention_mask=mask, position_ids=tensor(case["position_ids"]), labels=ids)
    output.loss.backward()
    assert output.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    empty_row = torch.tensor([[0] * ids.shape[1], *[[1] * ids.shape[1]] * (len(ids) - 1)])
    assert model(ids, attention_mask=empty_row).logits.isfinite().all()


@pytest.mark.parametrize("explicit_positions", [True, False])
def test_a_decoding_loop_of_ones_own(model, explicit_positions):
    case = cases()["gen_batch_leftpad"]
    ids = tensor(case["input_ids"])
    mask = (ids != PAD).long()
    positions = position_ids_for(ids, mask, model.config) if explicit_positions else None
    cache, columns = None, []
    with torch.no_grad():
        for _ in range(case["max_new_tokens"]):
            output = model(
                ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            assert output.logits.shape[1] == 1
            cache, ids = output.past_key_values, output.logits.argmax(-1)
            columns.append(ids)
            mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
            positions = None if positions is None else next_position_ids(positions)
    assert torch.cat(columns, dim=1).tolist() == case["new_tokens"]


def test_a_cache_filled_elsewhere_needs_positions(model):
    ids = tensor(cases()["b1_gmask"]["input_ids"])
    cache = model(ids, use_cache=True).past_key_values
    cache.crop(-9)
    with pytest.raises(ValueError, match="position_ids"):
        model(ids[:, 5:6], past_key_values=cache)


def test_masks_positions_and_caches_of_another_kind_are_refused(model):
    ids = tensor(cases()["b1_gmask"]["input_ids"])
    square = torch.zeros(1, 1, ids.shape[1], ids.shape[1])
    for wrong, word in (
        ({"attention_mask": square}, "bool"),
        ({"attention_mask": torch.ones(1, 5), "position_ids": position_ids_for(ids, None, model.config)}, "keys"),
        ({"position_ids": torch.arange(ids.shape[1])[None]}, "position_ids"),
        ({"inputs_embeds": model.get_input_embeddings()(ids)}, "exactly one"),
    ):
        with pytest.raises(ValueError, match=word):
            model(ids, **wrong)
    with pytest.raises(ValueError, match="cache"):
        model.generate(ids, max_new_tokens=2, cache_implementation="static")


def test_embeddings_and_chosen_positions(model):
    case = cases()["b1_gmask_target"]
    ids = tensor(case["input_ids"])
    positions = position_ids_for(ids, None, model.config)
    embedded = model.get_input_embeddings()(ids)
    with torch.no_grad():
        assert_close(model(inputs_embeds=embedded, position_ids=positions).logits, tensor(case["logits"]))
        chosen = torch.tensor([3, 13, 18])
        assert_close(model(ids, logits_to_keep=chosen).logits, tensor(case["logits"])[:, chosen])
        hidden = model.get_decoder()(ids).last_hidden_state
        assert_close(model.get_output_embeddings()(hidden[:, chosen]), tensor(case["logits"])[:, chosen])
        assert isinstance(model(ids, return_dict=False), tuple)
    with pytest.raises(ValueError, match="position_ids"):
        model(inputs_embeds=embedded)


def test_several_answers_a_prompt_keep_their_positions(model):
    case = cases()["gen_batch_leftpad"]
    ids = tensor(case["input_ids"])
    inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long(), "max_new_tokens": 12, "pad_token_id": PAD}
    beams = model.generate(**inputs, num_beams=2, num_return_sequences=2, do_sample=False)
    for row in range(len(ids)):
        alone = {"input_ids": ids[row : row + 1], "attention_mask": inputs["attention_mask"][row : row + 1]}
        expected = model.generate(**inputs | alone, num_beams=2, num_return_sequences=2, do_sample=False)
        assert torch.equal(beams[2 * row : 2 * row + 2], expected)


def test_gradient_checkpointing_changes_nothing(model):
    batch = _padded_batch("left")
    model.train()
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_saved_and_read_again(tmp_path):
    base = load_base(CHATGLM, device="cpu", dtype="float32")
    base.model.save_pretrained(tmp_path)
    official = json.loads((CHATGLM / "pytorch_model.bin.index.json").read_text(encoding="utf-8"))["weight_map"]
    again = load_base(tmp_path, device="cpu", dtype="float32").model
    stored = {name for name in official if "inv_freq" not in name}
    assert set(again.state_dict()) == stored
    assert all(torch.equal(value, base.model.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.lm_head.weight is again.transformer.word_embeddings.weight
    files = (tmp_path / "config.json", CHATGLM / "config.json")
    saved, original = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    kept = set(original) - {"_name_or_path", "architectures", "torch_dtype", "transformers_version"}
    assert {key: saved[key] for key in kept} == {key: original[key] for key in kept}
    assert "residual_alpha" not in saved


def test_an_alpha_of_ones_own_is_kept(tmp_path):
    config = ChatGLMConfig.from_pretrained(CHATGLM, residual_alpha=6**0.5)
    assert config.num_hidden_layers == config.num_layers == 3
    model = ChatGLMForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    again = load_base(tmp_path, device="cpu", dtype="float32").model
    assert again.config.residual_alpha == again.transformer.layers[0].alpha == 6**0.5
    ids = tensor(cases()["b1_gmask"]["input_ids"])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model.eval()(ids).logits)


def test_new_weights_have_the_standard_spread():
    model = ChatGLMForConditionalGeneration(ChatGLMConfig.from_pretrained(CHATGLM))
    block = model.transformer.layers[1]
    assert abs(block.mlp.dense_h_to_4h.weight.std().item() - 0.02) < 1e-3
    assert abs(model.transformer.word_embeddings.weight.std().item() - 0.02) < 1e-3
    assert block.mlp.dense_h_to_4h.bias.abs().max() == 0
    assert (block.input_layernorm.weight == 1).all()


def test_one_row_of_positions_is_refused():
    with pytest.raises(ValueError, match="position_encoding_2d"):
        ChatGLMConfig(position_encoding_2d=False)


def test_the_trainer_takes_it(tmp_path):
    model = load_base(CHATGLM, device="cpu", dtype="float32").model
    batch = _padded_batch("left")
    rows = [{key: value[i] for key, value in batch.items()} for i in range(len(batch["input_ids"]))]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=len(rows),
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": False},
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert abs(losses[0] - cases()["train_batch_rightpad"]["loss"]) < 1e-3
    assert losses[-1] < losses[0] - 1
