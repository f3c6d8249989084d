"""A run's settings as Hugging Face's TrainingArguments. Knows their names and the device; no model and no data."""

import torch
from transformers import TrainingArguments

from glmstudio.models.transformers_internals import use_one_device
from glmstudio.settings import TrainingSettings
from glmstudio.training.reporting import PROJECT
from glmstudio.training.runs import RunFolder


def training_arguments(
    settings: TrainingSettings,
    folder: RunFolder,
    device: torch.device,
    *,
    checkpointing: bool,
    dev: bool,
    use_cache: bool,
    evaluate_first: bool = False,
) -> TrainingArguments:
    """The settings under the Trainer's names, a batch of which is a whole optimizer step: how that is cut is not the
    Trainer's. Without dev rows nothing is evaluated, and with `evaluate_first` also before the first step."""
    eval_strategy = "steps" if settings.eval_steps else "epoch"
    save_steps = settings.save_steps or settings.eval_steps
    arguments = TrainingArguments(
        output_dir=str(folder.aside),
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.rows_in_step,
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
        activation_checkpointing=checkpointing,
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
        # The loader gives numbers of rows, no tensors.
        dataloader_pin_memory=False,
    )
    use_one_device(arguments, device)
    return arguments
