"""LoRA folders of old PEFT versions on the ChatGLM-6B port, against the original's numbers."""

import shutil

import pytest
import torch
from peft import PeftModel

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base import Base
from glmstudio.models.loading import load_base
from tests.unit.golden_cases import (
    CHATGLM,
    assert_close,
    assert_forward,
    assert_generates,
    assert_trains,
    cases,
    names,
    tensor,
    valid_rows,
)

LORA = CHATGLM / "lora_adapter"


@pytest.fixture
def base() -> Base:
    return load_base(CHATGLM, device="cpu", dtype="float32")


@pytest.mark.parametrize("name", names("forward", adapter=True))
def test_lora_logits(base, name):
    assert_forward(load_adapter(base, LORA), cases()[name])


@pytest.mark.parametrize("name", names("train", adapter=True))
def test_lora_loss_and_gradients(base, name):
    assert_trains(PeftModel.from_pretrained(base.model, LORA, is_trainable=True), cases()[name])


@pytest.mark.parametrize("name", names("generate", adapter=True))
def test_lora_greedy_answers(base, name):
    assert_generates(load_adapter(base, LORA), cases()[name])


def test_lora_training_goes_the_originals_way(base):
    steps = cases()["lora_train_steps"]
    batch = cases()[steps["batch_from"]]
    inputs = {"input_ids": tensor(batch["input_ids"]), "labels": tensor(batch["labels"])}
    model = PeftModel.from_pretrained(base.model, LORA, is_trainable=True)
    base.model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0)
    for expected in steps["losses"]:
        loss = model(**inputs).loss
        assert abs(loss.item() - expected) < 1e-3
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, norm in steps["final_adapter_norms"].items():
        assert abs(trained[name].norm().item() - norm) < 1e-3 * norm, name


def test_rows_of_one_batch_choose_their_adapter(base):
    case = cases()["batch_leftpad"]
    ids, keep = tensor(case["input_ids"]), valid_rows(case)
    inputs = {"input_ids": ids, "attention_mask": keep.long()}
    with torch.no_grad():
        plain = base.model(**inputs).logits
        model = load_adapter(base, LORA)
        tuned = model(**inputs).logits
        mixed = model(**inputs, adapter_names=["__base__", "default", "__base__"]).logits
    assert (plain - tuned)[keep].abs().max() > 1
    for row, expected in enumerate((plain, tuned, plain)):
        assert_close(mixed[row][keep[row]], expected[row][keep[row]], worst=2e-5, rms=5e-6)


def test_a_folder_without_adapter(base, tmp_path):
    for folder in (tmp_path, CHATGLM):
        with pytest.raises(StudioError) as caught:
            load_adapter(base, folder)
        assert (caught.value.code, caught.value.params) == ("adapter-missing", {"folder": str(folder)})


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("rank", "adapter-unfit"),
        ("cut short", "shard-unreadable"),
        ("no weights", "adapter-no-weights"),
        ("prefix", "adapter-unfit"),
    ],
)
def test_an_adapter_that_does_not_fit_leaves_the_base_as_it_was(base, tmp_path, damage, code):
    folder = tmp_path / "adapter"
    shutil.copytree(CHATGLM / "ptuning" if damage == "prefix" else LORA, folder)
    if damage == "rank":
        text = (folder / "adapter_config.json").read_text(encoding="utf-8")
        (folder / "adapter_config.json").write_text(text.replace('"r": 4', '"r": 2'), encoding="utf-8")
    elif damage == "cut short":
        data = (folder / "adapter_model.bin").read_bytes()
        (folder / "adapter_model.bin").write_bytes(data[: len(data) // 2])
    elif damage == "no weights":
        (folder / "adapter_model.bin").unlink()
    else:
        text = (folder / "config.json").read_text(encoding="utf-8")
        (folder / "config.json").write_text(text.replace('"pre_seq_len": 8', '"pre_seq_len": 4'), encoding="utf-8")
    modules = [name for name, _ in base.model.named_modules()]
    with pytest.raises(StudioError) as caught:
        load_adapter(base, folder)
    assert caught.value.code == code
    assert str(folder) in (caught.value.params.get("folder") or caught.value.params["file"])
    assert [name for name, _ in base.model.named_modules()] == modules
    assert_forward(base.model, cases()["b1_gmask_target"])
