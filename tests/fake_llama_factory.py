"""Stands for `llamafactory.train.tuner`: trains what its `run_exp` is given by transformers' Trainer and PEFT.

Reads the folder as the original does: an alpaca data set, prompt and answer tokenised one after the other, and only
answers bear loss. A test puts it where the bench looks for LLaMA-Factory, and compares the losses with ours.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

KEPT = (
    "output_dir", "num_train_epochs", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type",
    "max_grad_norm", "seed", "bf16", "use_cpu", "logging_steps", "save_strategy", "report_to",
)  # fmt: skip


def run_exp(args: dict[str, Any], callbacks: list[Any]) -> None:
    assert (args["stage"], args["template"], args["finetuning_type"]) == ("sft", "empty", "lora")
    assert not Path(args["output_dir"]).exists(), "the original refuses a folder that is there"
    tokenizer = AutoTokenizer.from_pretrained(args["model_name_or_path"])
    model = AutoModelForCausalLM.from_pretrained(args["model_name_or_path"])
    folder = Path(args["dataset_dir"])
    file = json.loads((folder / "dataset_info.json").read_text())[args["dataset"]]["file_name"]
    rows = [_row(tokenizer, row) for row in json.loads((folder / file).read_text())]
    set_seed(args["seed"])
    targets = args["lora_target"].split(",")
    lora = LoraConfig(r=args["lora_rank"], lora_alpha=args["lora_alpha"], target_modules=targets, task_type="CAUSAL_LM")
    arguments = TrainingArguments(**{name: args[name] for name in KEPT}, disable_tqdm=True)
    Trainer(
        get_peft_model(model, lora), arguments, data_collator=_padded, train_dataset=rows, callbacks=callbacks
    ).train()


def _row(tokenizer: Any, row: dict[str, str]) -> dict[str, torch.Tensor]:
    assert not row["input"]
    prompt, answer = (tokenizer.encode(row[name], add_special_tokens=False) for name in ("instruction", "output"))
    ids = torch.tensor([*prompt, *answer])
    return {"input_ids": ids, "labels": torch.cat((torch.full((len(prompt),), -100), ids[len(prompt) :]))}


def _padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    batch = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
        for name, fill in (("input_ids", 1), ("labels", -100))
    }
    return batch | {"attention_mask": (batch["input_ids"] != 1).long()}
