"""Families beside those of the table: they train and answer as in plain transformers, or check and doctor refuse."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.base import Base
from glmstudio.models.families.table import family_of
from glmstudio.models.inspection.doctor import examine
from glmstudio.models.loading import load_base
from glmstudio.models.resident import BASE_NAME, Resident, lora_targets
from glmstudio.models.supported import unsupported
from glmstudio.settings import LoraSettings, TrainingSettings
from glmstudio.training.probe import probe
from tests.tiny_families import tiny_tokenizer
from tests.train.runs import TRAIN, checked, run_in

IDS = torch.tensor([[11, 12, 13, 14, 15]])
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
USUAL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
REFUSED = {
    "granite": ("family-loss", USUAL | {"logits_scaling": 8.0}),
    "cohere": ("family-loss", USUAL),
    "gemma2": ("family-loss", USUAL | {"head_dim": 8}),
    "bert": ("family-loss", USUAL),
    "jetmoe": ("family-checkpointing", USUAL),
    "openai-gpt": ("family-cache", GPT2),
    "mamba": ("family-cache", {"hidden_size": 32, "num_hidden_layers": 2}),
    "rwkv": ("family-cache", {"hidden_size": 32, "num_hidden_layers": 2}),
}
ACCEPTED = {
    "gpt2": GPT2,
    "granite": USUAL,
    "mixtral": USUAL | {"num_local_experts": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "phimoe": USUAL | {"num_local_experts": 4},
}


def config_of(model_type: str, sizes: dict[str, object]) -> object:
    return AutoConfig.for_model(model_type, **sizes, vocab_size=len(tiny_tokenizer()), eos_token_id=0, pad_token_id=0)


def base_of(model_type: str, sizes: dict[str, object]) -> Base:
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config_of(model_type, sizes)).eval()
    family = family_of({"model_type": model_type}, "tiny")
    return Base(model, tiny_tokenizer(), family, "tiny", torch.device("cpu"), torch.float32)


def refusal(model_type: str, sizes: dict[str, object]) -> str:
    error = unsupported(config_of(model_type, sizes), family_of({"model_type": model_type}, "tiny"), "tiny")
    return error.code if error else ""


def test_what_cannot_be_trained_is_told_from_the_config() -> None:
    assert {name: refusal(name, sizes) for name, (_, sizes) in REFUSED.items()} == {
        name: code for name, (code, _) in REFUSED.items()
    }
    assert [name for name, sizes in ACCEPTED.items() if refusal(name, sizes)] == []


def test_check_and_doctor_give_the_same_reason(tmp_path) -> None:
    base = base_of(*("granite", REFUSED["granite"][1]))
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    found = examine(tmp_path, device="cpu", dtype="fp32")
    assert (found.untrained.code, found.next_step, found.problems) == ("family-loss", "untrained", [])
    assert set(found.fits.values()) == {"untrained"}
    loaded = load_base(tmp_path, device="cpu", dtype="fp32")
    errors = [
        item.code for item in checked(loaded, TRAIN, [], LoraSettings(), TrainingSettings()) if item.severity == "error"
    ]
    assert errors == ["family-loss"]


def test_an_encoder_decoder_is_not_half_loaded() -> None:
    with pytest.raises(StudioError, match="family-encoder"):
        family_of({"model_type": "bart", "is_encoder_decoder": True}, "tiny")
    assert family_of({"model_type": "bart"}, "tiny").name == "bart"


def test_gpt2_trains_and_answers_as_peft_does(tmp_path) -> None:
    resident = Resident(base_of("gpt2", GPT2))
    settings = TrainingSettings(num_train_epochs=2, learning_rate=2e-2, per_device_train_batch_size=8)
    assert probe(resident, LoraSettings(), settings, most=1000) is not None
    run = run_in(tmp_path / "run", settings, resident=resident, dev_rows=[])
    assert run.status == "finished"
    resident.load("run@1", tmp_path / "run" / "best")
    ours = resident.forward(["run@1", BASE_NAME], input_ids=IDS.expand(2, -1)).logits
    plain = PeftModel.from_pretrained(base_of("gpt2", GPT2).model, tmp_path / "run" / "best")
    with torch.no_grad():
        theirs = plain.eval()(input_ids=IDS).logits
    torch.testing.assert_close(ours[:1], theirs, atol=1e-5, rtol=0)
    assert (ours[0] - ours[1]).abs().max() > 0.01


def test_a_router_is_no_layer_for_an_adapter_and_what_goes_around_a_layer_neither() -> None:
    assert "router" not in lora_targets(base_of("phimoe", ACCEPTED["phimoe"]), LoraSettings())
    assert "query_key_value" in lora_targets(base_of("falcon", ACCEPTED["falcon"]), LoraSettings())


def test_a_pass_that_breaks_off_is_told_as_one(monkeypatch) -> None:
    resident = Resident(base_of("gpt2", GPT2))
    monkeypatch.setattr(resident.base.model, "get_decoder", lambda: 1 / 0)
    with pytest.raises(StudioError, match="probe-failed"):
        probe(resident, LoraSettings(), TrainingSettings(), most=1000)
    monkeypatch.undo()
    short = Resident(base_of("gpt2", GPT2 | {"n_positions": 32}))
    assert probe(short, LoraSettings(), TrainingSettings(), most=1000) is not None
