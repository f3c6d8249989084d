"""The ways to train that are compared: ours, Hugging Face's Trainer as people call it and at its best, an older loop.

Each takes a base and rows, makes a LoRA of the same targets and start, and gives each update's loss (mean over its
target tokens, before it) and the seconds from the first update to the end of the last. All use AdamW at a constant
rate, clip at norm 1.0 and take eight rows an update. Knows no process and no table.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments, set_seed

from glmstudio.benchmarks.clock import Clock, Clocked
from glmstudio.benchmarks.random_base import LORA, PAD
from glmstudio.data.example import Example
from glmstudio.models.base import Base
from glmstudio.models.chat_format import Rendered, render_example
from glmstudio.models.resident import Resident
from glmstudio.models.transformers_internals import attention_of
from glmstudio.settings import TrainingSettings
from glmstudio.training.metrics import read_from
from glmstudio.training.runs import RunFolder
from glmstudio.training.train import Progress, train

ROWS = 8
# A high rate: the losses of a few updates must move, or equal losses would say nothing.
SETTINGS = TrainingSettings(
    num_train_epochs=1,
    learning_rate=2e-3,
    per_device_train_batch_size=ROWS,
    warmup_ratio=0.0,
    lr_scheduler_type="constant",
)
# What the older scripts pad every row to, and their batches of one.
SLOTS = 700
IGNORED = -100


@dataclass(frozen=True)
class Outcome:
    losses: list[float]
    seconds: float


def rendered(base: Base, rows: Sequence[Example]) -> list[Rendered]:
    return [
        render_example(
            base.tokenizer,
            base.family,
            row.instruction,
            row.input,
            row.target,
            max_source_length=SETTINGS.max_source_length,
            max_target_length=SETTINGS.max_target_length,
        )
        for row in rows
    ]


def ours(
    base: Base, rows: Sequence[Example], epochs: int, *, at_step: Callable[[int, int], None] = lambda step, total: None
) -> Outcome:
    """`train()` itself, with its records; without dev rows. `at_step` hears each (step done, steps)."""
    lora, settings = LORA[base.family.name], replace(SETTINGS, num_train_epochs=float(epochs))
    clocks: list[Clock] = []
    seconds = [0.0]

    def hear(progress: Progress) -> None:
        if progress.phase == "training":
            clocks or clocks.append(Clock(base.device))
            at_step(progress.step, progress.total)
            if progress.step == progress.total:
                seconds[0] = seconds[0] or clocks[0].seconds()

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.create(snapshot_id="bench", dataset="bench", base=base, lora=lora, settings=settings)
        train(Resident(base), folder, rows, [], lora, settings, on_progress=hear)
        records, _ = read_from(folder.metrics_path)
    return Outcome([record.values["loss"] for record in records if record.kind == "train"], seconds[0])


def hf_plain(base: Base, rows: Sequence[Example], epochs: int) -> Outcome:
    """HF Trainer + PEFT: batches of eight, padded to their longest row, in random order."""
    return _hugging_face(base, rendered(base, rows), epochs, batch=ROWS, sampling="random")


def hf_best(base: Base, rows: Sequence[Example], epochs: int) -> Outcome:
    """HF Trainer + PEFT as fast as its settings go: like lengths together, micro-batches of two, eager attention.

    The rows come sorted by length, which is the least padding that `group_by_length` could reach on them.
    """
    ordered = sorted(rendered(base, rows), key=lambda row: len(row.ids), reverse=True)
    attention = attention_of(base.model.config)
    base.model.set_attn_implementation("eager")
    try:
        return _hugging_face(base, ordered, epochs, batch=2, sampling="sequential")
    finally:
        base.model.set_attn_implementation(attention)


def seed(base: Base, rows: Sequence[Example], epochs: int) -> Outcome:
    """The loop of the older fine-tuning scripts: one row at a time in 700 slots, logits of all of them, gradient
    checkpointing. Its loss is put on the update's target tokens, so that it can be compared."""
    model = _adapted(base)
    base.model.activation_checkpointing_enable()
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=SETTINGS.learning_rate, weight_decay=0.0)
    items = [_item(row) for row in rendered(base, rows)]
    losses, clock = [], Clock(base.device)
    for _ in range(epochs):
        for start in range(0, len(items), ROWS):
            update = items[start : start + ROWS]
            targets = sum(int((item["labels"] != IGNORED).sum()) for item in update)
            losses.append(0.0)
            for item in update:
                inputs = {name: value.to(base.device) for name, value in _padded([item], SLOTS).items()}
                loss = model(**inputs, use_cache=False, num_items_in_batch=targets).loss
                loss.backward()
                losses[-1] += loss.item()
            torch.nn.utils.clip_grad_norm_(weights, SETTINGS.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    seconds = clock.seconds()
    base.model.activation_checkpointing_disable()
    model.unload()
    return Outcome(losses, seconds)


WAYS: dict[str, Callable[[Base, Sequence[Example], int], Outcome]] = {
    "ours": ours,
    "hf-plain": hf_plain,
    "hf-best": hf_best,
    "seed": seed,
}


class _Noted(Trainer):
    """The Trainer, which also keeps every micro-batch's share of its update's loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shares: list[torch.Tensor] = []

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.shares.append(super().training_step(*args, **kwargs))
        return self.shares[-1]


def _hugging_face(base: Base, rows: Sequence[Rendered], epochs: int, *, batch: int, sampling: str) -> Outcome:
    model = _adapted(base)
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            num_train_epochs=epochs,
            learning_rate=SETTINGS.learning_rate,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=ROWS // batch,
            train_sampling_strategy=sampling,
            lr_scheduler_type=SETTINGS.lr_scheduler_type,
            max_grad_norm=SETTINGS.max_grad_norm,
            seed=SETTINGS.seed,
            logging_steps=1,
            save_strategy="no",
            use_cpu=base.device.type == "cpu",
            bf16=False,
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
        )
        clocked = Clocked(base.device)
        items = [_item(row) for row in rows]
        trainer = _Noted(model, arguments, data_collator=_padded, train_dataset=items, callbacks=[clocked])
        trainer.train()
    model.unload()
    shares = [float(share) for share in trainer.shares]
    size = ROWS // batch
    return Outcome([sum(shares[start : start + size]) for start in range(0, len(shares), size)], clocked.seconds)


def _adapted(base: Base) -> Any:
    lora = LORA[base.family.name]
    set_seed(SETTINGS.seed)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.lora_alpha, target_modules=list(lora.target_modules), task_type="CAUSAL_LM"
    )
    return get_peft_model(base.model.requires_grad_(False), config)


def _item(row: Rendered) -> dict[str, torch.Tensor]:
    ids = torch.tensor(row.ids)
    return {"input_ids": ids, "labels": torch.where(torch.tensor(row.bears_loss), ids, IGNORED)}


def _padded(items: Sequence[dict[str, torch.Tensor]], width: int = 0) -> dict[str, torch.Tensor]:
    """(b, s) tensors, padded on the right to the longest row or to `width`."""
    batch = {}
    for name, value in (("input_ids", PAD), ("labels", IGNORED)):
        batch[name] = pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)
        missing = max(0, width - batch[name].shape[1])
        batch[name] = torch.nn.functional.pad(batch[name], (0, missing), value=value)
    return batch | {"attention_mask": (batch["input_ids"] != PAD).long()}
