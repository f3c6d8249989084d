"""P-Tuning v2 runs: the original's loss and gradients, checkpoints of the official form, answers, resume."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch
from transformers import set_seed

from glmstudio.data.example import Example
from glmstudio.evaluation.evaluate import evaluate
from glmstudio.inference.compare import answer_text, compare
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.adapters.prefix import PrefixModel
from glmstudio.models.base import Base
from glmstudio.models.chat_format import Rendered, render_prompt
from glmstudio.models.loading import load_base
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings, LoraSettings, TrainingSettings
from glmstudio.training.batches import collate, render_rows
from glmstudio.training.loss import agrees_with_model, target_loss
from glmstudio.training.runs import RunFolder
from tests.tiny_base import tiny_base
from tests.tiny_families import native_folder
from tests.train.runs import DEV, FAST, TRAIN, checked, records, resume_in, run_in
from tests.unit.golden_cases import CHATGLM, CHATGLM2, CHATGLM3, GRADIENT, LOSS, cases, tensor

PTUNING = dataclasses.replace(FAST, method="ptuning", pre_seq_len=6, learning_rate=1.0)
PROJECTED = dataclasses.replace(PTUNING, prefix_projection=True, learning_rate=0.1)
GREEDY = GenerationSettings(max_new_tokens=10)


def prefix_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint / "pytorch_model.bin")


def bytes_of(checkpoint: Path) -> bytes:
    return (checkpoint / "pytorch_model.bin").read_bytes()


def own_dev_loss(base: Base, checkpoint: Path) -> float:
    """The dev loss of a saved prefix, by the loaded model's own loss, one row at a time."""
    model = load_adapter(base, checkpoint)
    total = count = 0
    for row in render_rows(base, DEV, FAST):
        batch = collate([row])
        labels = torch.full_like(batch["input_ids"], -100)
        labels.view(-1)[batch["places"] + 1] = batch["targets"]
        with torch.no_grad():
            total += model(input_ids=batch["input_ids"], labels=labels).loss.item() * len(batch["targets"])
        count += len(batch["targets"])
    return total / count


def answer_alone(base: Base, checkpoint: Path, row: Example) -> str:
    """What transformers' generate answers to one row behind the saved prefix."""
    prompt = render_prompt(base.tokenizer, base.family, row.instruction, row.input, max_source_length=100).ids
    wish = {
        "max_new_tokens": GREEDY.max_new_tokens,
        "do_sample": False,
        "eos_token_id": end_ids(base.tokenizer, base.family, base.model.generation_config.eos_token_id),
    }
    ids = load_adapter(base, checkpoint).generate(torch.tensor([prompt]), pad_token_id=0, **wish)
    return answer_text(base.tokenizer, ids[0, len(prompt) :].tolist())


@pytest.mark.parametrize("golden", [CHATGLM, CHATGLM2, CHATGLM3], ids=lambda folder: folder.name)
def test_the_trainers_loss_and_gradients_are_the_originals(golden: Path) -> None:
    resident = Resident(load_base(golden, device="cpu", dtype="float32"))
    model = load_adapter(resident.base, golden / "ptuning")
    case = cases(golden)["ptuning_train_batch"]
    labels = tensor(case["labels"], golden)[:, 1:]
    bears = labels != -100
    rows, places = bears.nonzero(as_tuple=True)
    ids = tensor(case["input_ids"], golden)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "places": rows * ids.shape[1] + places,
        "targets": labels[bears],
    }
    loss = target_loss(model, batch) / bears.sum()
    loss.backward()
    assert abs(loss.item() - case["loss"]) < LOSS
    (gradient,) = (weight.grad for weight in model.parameters())
    expected = tensor(case["grads"]["transformer.prefix_encoder.embedding.weight"], golden)
    assert (gradient - expected).norm() < GRADIENT * expected.norm()
    assert all(weight.grad is None for weight in model.get_base_model().parameters())
    assert agrees_with_model(model, Rendered(ids[0].tolist(), bears[0].tolist(), 0))


@pytest.mark.parametrize("family", ["chatglm", "glm"])
@pytest.mark.parametrize("settings", [PTUNING, PROJECTED], ids=["plain", "projection"])
def test_a_run_learns_and_what_it_leaves_answers(family: str, settings: TrainingSettings, tmp_path: Path) -> None:
    base = (
        tiny_base()
        if family == "chatglm"
        else load_base(native_folder(family, tmp_path / "base"), device="cpu", dtype="float32")
    )
    resident, folder = Resident(base), tmp_path / "run"
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    run = run_in(folder, settings, resident=resident)
    assert (run.status, run.step, run.settings.method) == ("finished", 12, "ptuning")
    first, last = (record.values["loss"] for record in records(folder, "eval"))
    assert last < 0.99 * first
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())
    assert not any(weight.requires_grad for weight in base.model.parameters())

    assert RunFolder(folder).checkpoints() == ["best", "last", "checkpoint-12", "checkpoint-6"]
    assert own_dev_loss(base, folder / "best") == pytest.approx(run.best_eval_loss, abs=1e-5)
    assert {weight.dtype for weight in prefix_of(folder / "last").values()} == {torch.float32}
    assert all(name.startswith("transformer.prefix_encoder.") for name in prefix_of(folder / "last"))
    about = json.loads((folder / "best" / "glmstudio.json").read_text(encoding="utf-8"))
    assert (about["family"], about["snapshot_id"]) == (base.family.name, "abc")

    resident.load("tuned", folder / "best")
    asked = {"max_source_length": 100, "should_stop": lambda: False}
    *_, last = compare(resident, [BASE_NAME, "tuned"], "Name it.", "7 Rome is red.", GREEDY, **asked)
    assert [answer.finish_reason != "" for answer in last.rows] == [True, True]
    scores = evaluate(resident, [BASE_NAME, "tuned"], DEV, GREEDY, **asked, on_progress=None)
    assert [row["tuned"] for row in scores["rows"]] == [answer_alone(base, folder / "best", row) for row in DEV]


def test_the_start_is_the_official_one_and_seeded(tmp_path: Path) -> None:
    """torch's own start of an embedding, N(0, 1), whose first numbers are those of the seed."""
    resident = Resident(tiny_base())
    found = []
    for _ in range(2):
        set_seed(42)
        with resident.gate.turn():
            model = resident.begin_training(LoraSettings(), dataclasses.replace(PTUNING, pre_seq_len=64))
            resident.end_training()
        assert isinstance(model, PrefixModel)
        found.append(model.prefix_encoder.embedding.weight.detach())
    assert torch.equal(*found)
    assert found[0].std() == pytest.approx(1, abs=0.03)
    set_seed(42)
    assert torch.equal(found[0], torch.nn.Embedding(64, found[0].shape[1]).weight)


def test_the_same_seed_gives_the_same_bytes_and_a_stop_keeps_what_is_there(tmp_path: Path) -> None:
    run_in(tmp_path / "one", PTUNING)
    torch.manual_seed(12345)
    run_in(tmp_path / "two", PTUNING)
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "one" / name) == bytes_of(tmp_path / "two" / name)
    told = []
    stop = lambda: len(told) > 0 and told[-1].step >= 8  # noqa: E731
    run = run_in(tmp_path / "stopped", PTUNING, should_stop=stop, on_progress=told.append)
    assert (run.status, run.step) == ("stopped", 9)
    assert bytes_of(tmp_path / "stopped" / "checkpoint-6") == bytes_of(tmp_path / "one" / "checkpoint-6")
    assert resume_in(tmp_path / "stopped").status == "finished"
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "stopped" / name) == bytes_of(tmp_path / "one" / name)


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    """Also beside a finished LoRA, whose layers the second pass through a block must leave out as well."""
    run_in(tmp_path / "lora", lora=LoraSettings(r=2))
    run_in(tmp_path / "plain", PTUNING)
    resident = Resident(tiny_base())
    resident.load("lora", tmp_path / "lora" / "last")
    passes = [0, 0]
    mlp = resident.base.model.transformer.layers[0].mlp
    mlp.register_forward_pre_hook(lambda *_: passes.__setitem__(resident.base.model.training, passes[True] + 1))
    run_in(tmp_path / "saving", dataclasses.replace(PTUNING, gradient_checkpointing="on"), resident=resident)
    assert passes[True] == 24
    for name, weight in prefix_of(tmp_path / "plain" / "last").items():
        torch.testing.assert_close(prefix_of(tmp_path / "saving" / "last")[name], weight, atol=1e-5, rtol=1e-4)


def test_a_bf16_base_trains_a_float32_prefix(tmp_path: Path) -> None:
    resident = Resident(tiny_base(torch.bfloat16))
    config, attributes = resident.base.model.config.to_dict(), set(vars(resident.base.model))
    run_in(tmp_path / "run", PTUNING, resident=resident)
    losses = [record.values["loss"] for record in records(tmp_path / "run", "train")]
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in prefix_of(tmp_path / "run" / "last").values()} == {torch.float32}
    assert resident.base.model.config.to_dict() == config
    assert set(vars(resident.base.model)) == attributes
    assert not resident.base.model.training


@pytest.mark.slow
def test_trained_while_answering_is_trained_alone(tmp_path: Path) -> None:
    settings = dataclasses.replace(PTUNING, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    run_in(tmp_path / "alone", settings)
    run_in(tmp_path / "lora", lora=LoraSettings(r=2, lora_dropout=0.2, target_modules=("dense",)))
    run_in(tmp_path / "prefix", dataclasses.replace(PROJECTED, pre_seq_len=3))

    asked = Resident(tiny_base())
    answers, ended, step = [], threading.Event(), [0]

    def ask() -> None:
        number = 0
        while not ended.is_set():
            names = [f"run@{(number + place) % 6}" for place in range(2)]
            for name, adapter in zip(names, ("lora", "prefix"), strict=True):
                asked.load(name, tmp_path / adapter / "last")
            row = {"max_source_length": 100, "should_stop": lambda: False}
            wish = GenerationSettings(max_new_tokens=2)
            *_, last = compare(asked, [BASE_NAME, *names], "Name it.", f"{number} Rome", wish, **row)
            answers.append((step[0], last))
            number += 1

    asking = threading.Thread(target=ask)

    def follow(progress) -> None:
        step[0] = progress.step
        if progress.step == 1 and not asking.is_alive():
            asking.start()

    run_in(tmp_path / "asked", settings, resident=asked, on_progress=follow)
    ended.set()
    asking.join(600)
    assert len({at for at, _ in answers}) > 3
    for name in ("best", "last", "checkpoint-12"):
        assert bytes_of(tmp_path / "alone" / name) == bytes_of(tmp_path / "asked" / name)


def test_the_check_knows_where_a_prefix_has_no_place_and_a_rate_that_is_too_small(tmp_path: Path) -> None:
    base = load_base(native_folder("gemma3_text", tmp_path), device="cpu", dtype="float32")
    (error,) = (found for found in checked(base, TRAIN, DEV, LoraSettings(), PTUNING) if found.severity == "error")
    assert (error.code, error.params["family"]) == ("ptuning-family", "gemma3_text")
    slow = dataclasses.replace(PTUNING, learning_rate=2e-4)
    found = {found.code: found.params for found in checked(tiny_base(), TRAIN, DEV, LoraSettings(), slow)}
    assert found["ptuning-rate"] == {"rate": "0.0002", "usual": "0.02"}
    odd = LoraSettings(target_modules=("typo",))
    assert [found.code for found in checked(tiny_base(), TRAIN, DEV, odd, PTUNING)] == ["plan"]
