"""What only a graphics card can show: its attention kernel, its quantised layers, its memory. Skipped where there is
none."""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from glmstudio.benchmarks.answering import answering_job
from glmstudio.benchmarks.random_base import LORA, Shape, random_base
from glmstudio.benchmarks.rows import bench_rows
from glmstudio.benchmarks.ways import rendered
from glmstudio.data.kept_rows import RowSet
from glmstudio.models import varlen
from glmstudio.models.base import Base
from glmstudio.models.packing import Packing
from glmstudio.models.resident import Resident
from glmstudio.settings import TrainingSettings
from glmstudio.studio.base_slot import BaseSlot, BaseWish
from glmstudio.training.estimate import most_tokens, planned
from glmstudio.training.loss import batch_form, ready, target_loss
from glmstudio.training.memory_shortage import free_memory
from glmstudio.training.probe import probe
from glmstudio.training.runs import Run, RunFolder
from glmstudio.training.token_counts import TokenCounts
from tests.tiny_families import native_folder
from tests.train.runs import bytes_of, records, resume_in, run_in

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card here")

SETTINGS = TrainingSettings(num_train_epochs=2, learning_rate=2e-3, per_device_train_batch_size=8, save_steps=3)
ROOT = Path(__file__).resolve().parents[2]


def base_of(family: str = "glm", dtype: str = "bf16", *, size: str = "256x3", quantization: str = "none") -> Base:
    return random_base(Shape(family, size, dtype, quantization), "cuda")


def run(folder: Path, base: Base, settings: TrainingSettings = SETTINGS, *, rows: int = 48, **more) -> Run:
    lora = dataclasses.replace(LORA[base.family.name], lora_dropout=more.pop("dropout", 0.0))
    made = bench_rows("", rows, base.model.config.vocab_size)
    return run_in(folder, settings, lora=lora, train_rows=made, dev_rows=made[:8], resident=Resident(base), **more)


@pytest.mark.parametrize(
    ("contexts", "continues", "window"),
    [
        ((30, 0, 1, 119), (), None),
        ((50, 90, 1, 120), (), None),
        ((0, 0, 0, 0), (), None),
        ((0, 0, 0, 0), (), 40),
        ((0, 0, 0, 0), (None, 0, None, 0), None),
        ((0, 0, 0, 0), (None, 0, None, 0), 40),
    ],
)
def test_one_call_for_all_samples_is_each_sample_by_itself(contexts, continues, window) -> None:
    torch.manual_seed(0)
    packing = Packing((50, 90, 1, 120), contexts, continues)
    exact = [torch.randn(1, heads, 261, 64, device="cuda", requires_grad=True) for heads in (8, 2, 2)]
    rounded = [states.detach().bfloat16().requires_grad_() for states in exact]
    results = []
    for states in (exact, rounded):
        attended, _ = varlen.attend(None, *states, None, packing=packing, scaling=0.125, sliding_window=window)
        gradients = torch.autograd.grad(attended.float().square().sum(), states)
        results.append([attended.float(), *(gradient.float() for gradient in gradients)])
    for ours, theirs in zip(*reversed(results), strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize("family", ["glm", "chatglm"])
def test_loss_and_gradients_are_those_of_float32(family: str) -> None:
    found = []
    for dtype in ("fp32", "bf16"):
        base = base_of(family, dtype)
        base.model.load_state_dict(base_of(family, "bf16").model.state_dict())
        resident = Resident(base)
        with resident.gate.turn():
            model = resident.begin_training(LORA[family], SETTINGS).train()
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.data.normal_(std=0.02)
        batch = batch_form(model)(rendered(base, bench_rows("", 8, base.model.config.vocab_size)))
        batch |= {name: value.cuda() for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with ready(model):
            loss = target_loss(model, batch) / len(batch["targets"])
            loss.backward()
        gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
        found.append((loss.item(), torch.cat(gradients)))
    (exact, slopes), (ours, rounded) = found
    assert ours == pytest.approx(exact, rel=1e-3)
    assert (rounded - slopes).norm() < 0.05 * slopes.norm()


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("family", ["glm", "chatglm"])
def test_a_run_that_was_broken_off_ends_with_the_same_bytes(tmp_path: Path, family: str, dtype: str) -> None:
    run(tmp_path / "whole", base_of(family, dtype), dropout=0.1)
    told = []
    stopped = run(
        tmp_path / "run", base_of(family, dtype), dropout=0.1, on_progress=told.append,
        should_stop=lambda: told[-1].step >= 5,
    )  # fmt: skip
    assert stopped.status == "stopped"
    rows = bench_rows("", 48, 16384)
    again = resume_in(tmp_path / "run", train_rows=rows, dev_rows=rows[:8], resident=Resident(base_of(family, dtype)))
    assert again.status == "finished"
    losses = [[record.values["loss"] for record in records(tmp_path / name, "train")] for name in ("whole", "run")]
    assert losses[0] == losses[1]
    assert bytes_of(tmp_path / "run" / "last") == bytes_of(tmp_path / "whole" / "last")


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantised_base_learns(tmp_path: Path, quantization: str) -> None:
    often = dataclasses.replace(SETTINGS, num_train_epochs=40)
    ended = run(tmp_path / "run", base_of("chatglm", size="512x4", quantization=quantization), often, rows=8)
    losses = [record.values["loss"] for record in records(tmp_path / "run", "train")]
    assert ended.status == "finished"
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("family", ["glm", "chatglm"])
def test_base_and_tuned_in_one_batch_say_what_two_calls_say(family: str) -> None:
    for prompts, ways in ((3, ("one-batch", "two-calls")), (40, ("refilled", "two-calls-of-16"))):
        said = []
        for way in ways:
            job = {"rows": "", "prompts": prompts, "new_tokens": 24, "way": way}
            said.append(answering_job(base_of(family, "fp32"), job)["answers"])
        assert said[0] == said[1]


@pytest.mark.parametrize(
    ("family", "size", "quantization", "rows", "checkpointing"),
    [
        ("glm", "1024x8", "none", 16, "off"),
        ("chatglm", "1024x6", "none", 8, "off"),
        ("chatglm", "2048x6", "none", 16, "on"),
        ("chatglm", "2048x4", "4bit", 16, "off"),
    ],
)
def test_the_estimate_lies_between_what_was_allocated_and_what_was_kept(
    tmp_path: Path, family: str, size: str, quantization: str, rows: int, checkpointing: str
) -> None:
    base = base_of(family, size=size, quantization=quantization)
    settings = TrainingSettings(
        num_train_epochs=1, per_device_train_batch_size=rows, gradient_checkpointing=checkpointing
    )
    resident, lora, train = Resident(base), LORA[family], bench_rows("", 4 * rows, base.model.config.vocab_size)
    # What rows begin with alike would be computed once, which the estimate does not count on.
    train = [
        dataclasses.replace(row, instruction=f"{number + 100} {row.instruction}") for number, row in enumerate(train)
    ]
    sizes = TokenCounts().sizes(base.tokenizer, base.family, RowSet.of(train, []), settings)
    measured = probe(resident, lora, settings, most=most_tokens(sizes, settings))
    _, found = planned(resident, measured, sizes, settings)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run_in(tmp_path / "run", settings, lora=lora, train_rows=train, dev_rows=[], resident=resident)
    # torch keeps more than is allocated, but gives it back before memory runs out.
    assert 0.95 * torch.cuda.max_memory_allocated() < found.total < 1.05 * torch.cuda.max_memory_reserved()


def test_memory_that_runs_out_halves_the_budget(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.train.short_on_card", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = RunFolder(tmp_path / "run").read()
    assert (found.status, found.step) == ("finished", 2)
    assert found.halved_from > found.token_budget > 0


def test_a_base_that_is_let_go_leaves_the_card(tmp_path) -> None:
    free_memory()
    before = torch.cuda.memory_reserved()
    slot = BaseSlot(BaseWish(str(native_folder("llama", tmp_path / "llama")), "cuda", "bf16"))
    with slot.use(load=True):
        assert torch.cuda.memory_allocated() > 0
    slot.release()
    for thread in threading.enumerate():
        if thread.name == "release base":
            thread.join(600)
    assert torch.cuda.memory_reserved() <= before
