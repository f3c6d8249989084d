"""Hugging Face's Trainer with our batches, our loss, our dev loss and our checkpoints. Knows no run folder's rules.

Schedules, clipping, accumulation, optimizer and resumable state stay the Trainer's own.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from glmstudio.errors import StudioError
from glmstudio.models.adapters.prefix import PrefixModel
from glmstudio.models.adapters.prefix_files import refill, write_prefix
from glmstudio.models.chat_format import Rendered
from glmstudio.models.resident import IN_TRAINING
from glmstudio.settings import TrainingSettings
from glmstudio.training.batches import LikeLengths, dev_batches
from glmstudio.training.callbacks import StepStart
from glmstudio.training.loss import batch_form, ready, target_loss
from glmstudio.training.pace import Pace
from glmstudio.training.reporting import PROJECT
from glmstudio.training.runs import RunFolder, write_about

# The key of trainer_state.json under which a checkpoint keeps the loss since the record before.
UNRECORDED = "unrecorded"


def training_arguments(
    settings: TrainingSettings,
    folder: RunFolder,
    device: torch.device,
    *,
    dev: bool,
    use_cache: bool,
    evaluate_first: bool = False,
) -> TrainingArguments:
    """The settings under the Trainer's names; without dev rows nothing is evaluated, and with `evaluate_first` also
    before the first step."""
    eval_strategy = "steps" if settings.eval_steps else "epoch"
    save_steps = settings.save_steps or settings.eval_steps
    arguments = TrainingArguments(
        output_dir=str(folder.aside),
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type=settings.lr_scheduler_type,
        logging_steps=settings.logging_steps,
        eval_strategy=eval_strategy if dev else "no",
        eval_steps=settings.eval_steps or None,
        eval_on_start=dev and evaluate_first,
        save_strategy="steps" if save_steps else "epoch",
        save_steps=save_steps or 500,
        seed=settings.seed,
        activation_checkpointing=settings.gradient_checkpointing,
        use_cache=use_cache,
        use_cpu=device.type == "cpu",
        # A bf16 base with float32 adapters needs no autocast; accelerate's would stay on the shared model's forward.
        bf16=False,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        project=PROJECT,
        run_name=folder.path.name,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    # One run is on one device, the base's: no DataParallel over the other cards.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    arguments._setup_devices = arguments.distributed_state.device = device
    return arguments


class AdapterTrainer(Trainer):
    """Trains the adapter "default" of a PeftModel, or the prefix of a PrefixModel, on rendered rows.

    The loss is the mean over the target tokens of the whole optimizer step, however it is cut into micro-batches. The
    pace hears how many tokens each step has.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        train: Sequence[Rendered],
        dev: Sequence[Rendered],
        folder: RunFolder,
        pace: Pace,
        save_total_limit: int,
    ) -> None:
        form = batch_form(model)
        super().__init__(model, arguments, data_collator=form, train_dataset=train, eval_dataset=dev or None)
        self.remove_callback(PrinterCallback)
        self.add_callback(StepStart(self._remember, self._forget))
        self._before_step: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor] | None = None
        self._folder = folder
        self._pace = pace
        self._save_total_limit = save_total_limit

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of like length. The order does not come from global random numbers."""
        args, rows = self.args, self.train_dataset
        sampler = LikeLengths(
            [len(row.ids) for row in rows], args.train_batch_size, args.gradient_accumulation_steps, args.seed
        )
        # Its own generator: making an iterator draws a number, which would shift dropout's stream.
        loader = DataLoader(
            rows,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            generator=torch.Generator(),
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int]:
        """The micro-batches of one optimizer step and the target tokens in them."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        targets = sum(len(batch["targets"]) for batch in batches)
        self._pace.count(sum(batch["tokens"] for batch in batches), targets)
        return batches, targets

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """This micro-batch's share of the step's mean. Raises StudioError `loss-not-finite` before it can do harm."""
        loss = target_loss(model, inputs) / num_items_in_batch
        if not torch.isfinite(loss):
            self._refuse()
        return loss

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The Trainer's own: with gradient checkpointing the backward pass runs the decoder, too."""
        with ready(self.model):
            return super().training_step(model, *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer would walk over all parameters in every step for it."""
        return 0

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over the target tokens of all dev rows; nothing where a stop was asked for meanwhile."""
        rows = self.eval_dataset
        self.model.eval()
        total, targets = 0.0, 0
        for numbers in dev_batches(rows, self.args.train_batch_size):
            batch = self._prepare_inputs(self.data_collator([rows[number] for number in numbers]))
            with torch.no_grad():
                total += target_loss(self.model, batch).item()
            targets += len(batch["targets"])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if self.control.should_training_stop and self.state.global_step < self.state.max_steps:
                return {}
        metrics = {"eval_loss": total / targets}
        if not math.isfinite(metrics["eval_loss"]):
            self._refuse()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def keep(self, name: str) -> None:
        """Saves the adapter of this moment as the folder `name` of the run."""
        self._folder.put(name, self._save)

    def _get_grad_norm(self, model: Any, grad_norm: torch.Tensor | None = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm))
        if not math.isfinite(norm):
            self._refuse()
        return norm

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        # Only the adapter in training: the base may carry finished ones. The embeddings are the base's own.
        folder = Path(output_dir)
        if isinstance(self.model, PrefixModel):
            write_prefix(self.model, folder)
        else:
            self.model.save_pretrained(str(folder), selected_adapters=[IN_TRAINING], save_embedding_layers=False)
            # PEFT's model card is a form that nobody filled in; glmstudio.json says what is known.
            (folder / "README.md").unlink()
        write_about(folder, self._folder.read(), self.state.global_step)

    def keep_state(self) -> None:
        """Sees to it that the last whole step has a checkpoint to go on from, also where training ended inside one."""
        step = self.state.global_step
        if not step or step in self._folder.numbered():
            return
        if self._before_step is not None:
            random, random_cuda, self._tr_loss = self._before_step
            torch.set_rng_state(random)
            if random_cuda is not None:
                torch.cuda.set_rng_state(random_cuda)
        self._save_checkpoint(self.model, None)

    def _remember(self) -> None:
        random_cuda = torch.cuda.get_rng_state() if self.args.device.type == "cuda" else None
        self._before_step = torch.get_rng_state(), random_cuda, self._tr_loss.clone()

    def _forget(self) -> None:
        self._before_step = None

    def _run_epoch(self, **parts: Any) -> None:
        # Behind the last step of all, or a stop in the evaluation before the first, the Trainer would make one more.
        self.control.should_training_stop |= self.state.global_step >= self.state.max_steps
        if self.control.should_training_stop:
            return
        # The loss that no record has yet; the Trainer begins every sitting with none.
        if unrecorded := self.state.stateful_callbacks.pop(UNRECORDED, None):
            self._tr_loss += unrecorded["loss"]
            self._globalstep_last_logged = unrecorded["since"]
        super()._run_epoch(**parts)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PrefixModel):
            refill(self.model, Path(resume_from_checkpoint))
            return
        device = str(self.args.device)
        self.model.load_adapter(resume_from_checkpoint, IN_TRAINING, is_trainable=True, torch_device=device)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        name = f"checkpoint-{self.state.global_step}"
        unrecorded = {"loss": self._tr_loss.item(), "since": self._globalstep_last_logged}
        self.state.stateful_callbacks[UNRECORDED] = unrecorded
        # The Trainer writes to the same folder by itself, because its output directory is where `put` writes aside.
        self._folder.put(name, lambda path: super(AdapterTrainer, self)._save_checkpoint(model, trial))
        self._folder.keep_newest(self._save_total_limit)
        del self.state.stateful_callbacks[UNRECORDED]

    def _refuse(self) -> None:
        rate = f"{self._get_learning_rate():.2g}"
        raise StudioError("loss-not-finite", step=self.state.global_step + 1, rate=rate)
