"""Hugging Face's Trainer with our batches, our loss, our dev loss and our checkpoints. Knows no run folder's rules.

Clipping, optimizer and resumable state stay the Trainer's own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch.utils.data import DataLoader
from transformers import PrinterCallback, SchedulerType, Trainer, TrainingArguments

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD
from glmstudio.models.adapters.prefix import PrefixModel
from glmstudio.models.adapters.prefix_files import refill, write_prefix
from glmstudio.models.base_names import public_name
from glmstudio.models.chat_format import Rendered
from glmstudio.models.resident import IN_TRAINING
from glmstudio.models.tensor_writing import usual_mode
from glmstudio.models.transformers_internals import leave_unwrapped
from glmstudio.training.batches import StepSampler, by_length, collate, split_step
from glmstudio.training.callbacks import StepStart
from glmstudio.training.guards import StepGuard
from glmstudio.training.loss import batch_form, ready, target_loss
from glmstudio.training.memory_shortage import TokenBudget, free_memory, is_shortage, largest_batch
from glmstudio.training.pace import Pace
from glmstudio.training.ranks import Ranks, SharedWish
from glmstudio.training.runs import Run, RunFolder
from glmstudio.training.schedule import ScheduledRate

# The keys of trainer_state.json under which a checkpoint keeps the loss since the record before, and those before it.
UNRECORDED, LOSSES = "unrecorded", "losses"
# The states of torch's random numbers: the CPU's and the current graphics card's.
RandomNumbers = tuple[torch.Tensor, torch.Tensor | None]


class _StepLeft(Exception):
    """A stop was asked for inside an optimizer step, which then is not made."""


class AdapterTrainer(Trainer):
    """Trains the adapter "default" of a PeftModel, or the prefix of a PrefixModel, on rendered rows.

    The loss is the mean over the target tokens of the whole optimizer step, however it is cut into micro-batches: by
    the run's `token_budget`, without one by `batch_size` rows; where memory runs out it is halved, once a run, and the
    step is made again. The pace hears how many tokens each step has.
    """

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        train: Sequence[Rendered],
        dev: Sequence[Rendered],
        folder: RunFolder,
        pace: Pace,
        batch_size: int,
        run: Run,
        on_halved: Callable[[int, int], None],
        save_total_limit: int,
        guard: StepGuard,
        here: Ranks,
        stop: SharedWish,
    ) -> None:
        form = batch_form(model)
        super().__init__(model, arguments, data_collator=form, train_dataset=train, eval_dataset=dev or None)
        self.remove_callback(PrinterCallback)
        self.add_callback(StepStart(self._remember, self._forget))
        self._before_step: RandomNumbers | None = None
        self._lengths = [len(row.ids) for row in train]
        self._padded = form is collate
        self._split = partial(split_step, batch_size=batch_size, padded=self._padded)
        most_rows = -(-arguments.train_batch_size // here.count) if run.token_budget else batch_size
        self._budget = TokenBudget(
            run.token_budget,
            run.halved_from,
            largest=largest_batch(self._lengths, most_rows, padded=self._padded),
            longest=max(self._lengths),
            on_halved=on_halved,
        )
        self._folder = folder
        self._pace = pace
        self._save_total_limit = save_total_limit
        self._guard = guard
        self._here = here
        self._stop = stop
        # Else accelerate wraps it, and its hooks would wait for a forward pass that is not ours.
        leave_unwrapped(model)

    def get_train_dataloader(self) -> DataLoader:
        """Whole optimizer steps as lists of row numbers. Their order does not come from global random numbers."""
        sampler = StepSampler(self._lengths, self.args.train_batch_size, self.args.seed, alike=self._padded)
        # Its own generator: making an iterator draws a number, which would shift dropout's stream.
        loader = DataLoader(
            range(len(self._lengths)), batch_sampler=sampler, collate_fn=list, generator=torch.Generator()
        )
        # Every process hears of every step and takes its share of the rows.
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> ScheduledRate:
        if self.lr_scheduler is None:
            kind, ratio = SchedulerType(self.args.lr_scheduler_type).value, self.args.warmup_steps
            self.lr_scheduler = ScheduledRate(optimizer or self.optimizer, kind, ratio, num_training_steps)
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[int]], num_batches: int, device: torch.device
    ) -> tuple[list[list[int]], int]:
        """The rows of one optimizer step, by number, and the target tokens in them."""
        rows = next(epoch_iterator)
        targets = sum(sum(self.train_dataset[row].bears_loss) for row in rows)
        self._pace.count(sum(self._lengths[row] for row in rows), targets)
        self._guard.begin(self.state.global_step + 1, rows)
        return [self._here.share(rows)], targets

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: int | None = None) -> torch.Tensor:
        """The mean loss of the whole step, of which this process has these rows, with the gradients of the whole step.

        Raises StudioError as `StepGuard` gives it, before any weight has changed.
        """
        if self.control.should_training_stop:
            raise _StepLeft
        with self._here.passing():
            loss = self._backward_again_if_short(model, inputs, num_items_in_batch)
        if self._here.count > 1:
            self._here.add_gradients(model.parameters())
            self._stop.exchange()
            total, halvings = self._here.sum(float(loss), self._budget.halved_from)
            loss = torch.tensor(total, device=loss.device)
            # A process that ran short has made its share again by itself; from the next step on all cut alike.
            if halvings:
                self._budget.halve()
        self._refuse(self._guard.of_loss(float(loss)))
        return loss

    def _backward_again_if_short(self, model: Any, inputs: list[int], targets: int) -> torch.Tensor:
        """As `_backward`; where memory runs out with half the token budget, as if that had been it from the first."""
        try:
            return self._backward(model, inputs, targets)
        except Exception as error:
            # The others of a sharded base would wait in the pass that failed, not in one that is made again.
            if self._here.sharded or not is_shortage(error) or not self._budget.halve():
                raise
        # Behind the handler: the error holds what the pass that failed had in memory.
        model.zero_grad()
        _use_random_numbers(self._before_step)
        free_memory()
        return self._backward(model, inputs, targets)

    def _backward(self, model: Any, inputs: list[int], targets: int) -> torch.Tensor:
        """The share of these rows in a mean over so many target tokens; gradients are added up, one micro-batch after
        the other. Others get their turn between two of them."""
        model.train()
        shares = [torch.zeros((), device=self.args.device)] if not inputs else []
        parts = self._split(inputs, self._lengths, token_budget=self._budget.tokens)
        for part, weight in self._with_missing(parts, self._lengths):
            if shares:
                self.control = self.callback_handler.on_substep_end(self.args, self.state, self.control)
                if self.control.should_training_stop:
                    raise _StepLeft
            batch = self._prepare_inputs(self.data_collator([self.train_dataset[row] for row in part]))
            # With gradient checkpointing the backward pass runs the decoder, too.
            with ready(self.model):
                share = target_loss(model, batch) * weight / targets
                self.accelerator.backward(share)
            shares.append(share.detach())
        return torch.stack(shares).sum()

    def _with_missing(self, parts: list[list[int]], lengths: Sequence[int]) -> list[tuple[list[int], int]]:
        """Each micro-batch with the weight 1, and with 0 the shortest row as often as other processes need company."""
        weighted = [(part, 1) for part in parts]
        if missing := self._here.missing(len(parts)):
            weighted += [([min(range(len(lengths)), key=lengths.__getitem__)], 0)] * missing
        return weighted

    def floating_point_ops(self, inputs: list[int]) -> int:
        """Not counted: the Trainer would walk over all parameters in every step for it."""
        return 0

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over the target tokens of all dev rows; nothing where a stop was asked for meanwhile."""
        rows = self.eval_dataset
        lengths = [len(row.ids) for row in rows]
        self.model.eval()
        total, targets = 0.0, 0
        with self._here.passing():
            parts = self._here.share(self._split(by_length(lengths), lengths, token_budget=self._budget.tokens))
            for part, weight in self._with_missing(parts, lengths):
                batch = self._prepare_inputs(self.data_collator([rows[number] for number in part]))
                with torch.no_grad():
                    total += weight * target_loss(self.model, batch).item()
                targets += weight * len(batch["targets"])
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
                if self.control.should_training_stop and self.state.global_step < self.state.max_steps:
                    return {}
        total, targets = self._here.sum(total, targets)
        metrics = {"eval_loss": total / targets}
        self._refuse(self._guard.of_dev_loss(self.state.global_step, metrics["eval_loss"]))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def keep(self, name: str) -> None:
        """Saves the adapter of this moment as the folder `name` of the run."""
        self._folder.put(name, self._save)

    def _get_grad_norm(self, model: Any, grad_norm: torch.Tensor | None = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm))
        self._refuse(self._guard.of_number(norm))
        return norm

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        # Only the adapter in training: the base may carry finished ones. The embeddings are the base's own.
        if not self._here.first:
            return
        folder = Path(output_dir)
        if isinstance(self.model, PrefixModel):
            write_prefix(self.model, folder)
        else:
            with usual_mode(folder / SAFETENSORS_WEIGHTS_NAME):
                self.model.save_pretrained(str(folder), selected_adapters=[IN_TRAINING], save_embedding_layers=False)
            # PEFT's model card is a form that nobody filled in; glmstudio.json says what is known.
            (folder / "README.md").unlink()
        _write_about(folder, self._folder.read(), self.state.global_step)

    def keep_state(self) -> None:
        """Sees to it that the last whole step has a checkpoint to go on from, also from inside the next one."""
        step = self.state.global_step
        if not step:
            return
        if self._here.same(step in self._folder.numbered()):
            # A process that died right behind it may have left one too many.
            self._folder.keep_newest(self._save_total_limit)
            return
        now = self._random_numbers()
        _use_random_numbers(self._before_step or now)
        self._save_checkpoint(self.model, None)
        _use_random_numbers(now)

    def _random_numbers(self) -> RandomNumbers:
        return torch.get_rng_state(), torch.cuda.get_rng_state() if self.args.device.type == "cuda" else None

    def _remember(self) -> None:
        self._before_step = self._random_numbers()

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
        if losses := self.state.stateful_callbacks.pop(LOSSES, None):
            self._guard.losses.restore(losses)
        with suppress(_StepLeft):
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
        self.state.stateful_callbacks |= {UNRECORDED: unrecorded, LOSSES: self._guard.losses.state}
        # The Trainer writes to the same folder by itself, because its output directory is where `put` writes aside.
        self._folder.put(name, lambda path: self._write_checkpoint(model, trial))
        self._folder.keep_newest(self._save_total_limit)
        self._here.wait()
        for key in (UNRECORDED, LOSSES):
            del self.state.stateful_callbacks[key]

    def _write_checkpoint(self, model: Any, trial: Any) -> None:
        # Every process writes its random numbers: the folder must be there before, and stay until all have.
        self._here.wait()
        super()._save_checkpoint(model, trial)
        self._here.wait()

    def _save_rng_state(self, output_dir: str) -> None:
        """Of several processes each keeps those of its own device; the Trainer would begin to use every one for it."""
        if self._here.count == 1:
            super()._save_rng_state(output_dir)
            return
        states = {"cpu": torch.get_rng_state()}
        if self.args.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state()
        torch.save(states, Path(output_dir) / f"rng_state_{self._here.index}.pth")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._here.count == 1 or checkpoint is None:
            super()._load_rng_state(checkpoint)
            return
        states = torch.load(Path(checkpoint) / f"rng_state_{self._here.index}.pth", weights_only=True)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])

    def _refuse(self, error: StudioError | None) -> None:
        if error is None:
            return
        # All processes have the same sums, so that all of them come here.
        with self._here.together():
            raise error


def _write_about(folder: Path, run: Run, step: int) -> None:
    """Writes `glmstudio.json` beside an adapter: what it was trained on and how its prompts are made."""
    about = {
        "prompt_style": run.settings.prompt_style,
        "base": run.base.source,
        "base_name": public_name(run.base.source),
        "base_fingerprint": run.base.fingerprint,
        "family": run.base.family,
        "max_source_length": run.settings.max_source_length,
        "max_target_length": run.settings.max_target_length,
        "run": run.id,
        "step": step,
        "snapshot_id": run.snapshot_id,
    }
    (folder / RECORD).write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _use_random_numbers(states: RandomNumbers) -> None:
    cpu, cuda = states
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
