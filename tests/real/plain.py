"""The same work by plain transformers, PEFT and llama.cpp, of which nothing knows GLM Studio."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

Row = Mapping[str, str]
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
SEED, RATE, BATCH, RANK, ALPHA = 42, 1e-3, 8, 8, 16
IGNORED = -100


class Noted(Trainer):
    """Keeps every step's loss unrounded."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def prompt_ids(tokenizer: Any, row: Row, style: str) -> list[int]:
    if style == "chat":
        message = {"role": "user", "content": f"{row['instruction']}\n{row['input']}"}
        text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False).input_ids
    return tokenizer(f"Instruction: {row['instruction']}\nInput: {row['input']}\nAnswer: ").input_ids


def losses(folder: Path, dtype: torch.dtype, rows: Sequence[Row], style: str) -> list[float]:
    """Each step's loss of one epoch over the rows as they come."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = []
    for row in rows:
        prompt = prompt_ids(tokenizer, row, style)
        answer = [*tokenizer(row["output"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        items.append({"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    set_seed(SEED)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(MODULES), task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="sequential",
            seed=SEED,
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
        )
        trainer = Noted(get_peft_model(model, config), arguments, data_collator=_padded, train_dataset=items)
        trainer.train()
    return trainer.losses


def answers(folder: Path, adapter: Path, dtype: torch.dtype, rows: Sequence[Row], style: str, most: int) -> list[str]:
    """What `generate()` says greedily, row by row, with the adapter on the base."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = PeftModel.from_pretrained(base, adapter).eval()
    said = []
    for row in rows:
        ids = torch.tensor([prompt_ids(tokenizer, row, style)])
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        said.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    return said


@torch.no_grad()
def merge_error(folder: Path, adapter: Path, merged: Path, rows: Sequence[Row], style: str) -> float:
    """Root mean square of the difference of logits, the merged files against base and adapter, over that of theirs."""
    tokenizer = AutoTokenizer.from_pretrained(merged)
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), adapter).eval()
    alone = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    worst = 0.0
    for row in rows:
        ids = torch.tensor([prompt_ids(tokenizer, row, style)])
        theirs, ours = both(ids).logits, alone(ids).logits
        worst = max(worst, ((ours - theirs).square().mean() / theirs.square().mean()).sqrt().item())
    return worst


def llama_cpp_answers(file: Path, tokenizer_folder: Path, rows: Sequence[Row], style: str, most: int) -> list[str]:
    """What llama.cpp says greedily with the GGUF file, whose own tokenizer it uses."""
    import xllamacpp

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(file), 1024, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    said = []
    for row in rows:
        # As text, special tokens and all, so that its tokenizer is held against the trained one, too.
        text = tokenizer.decode(prompt_ids(tokenizer, row, style))
        if tokenizer.bos_token and text.startswith(tokenizer.bos_token) and style == "instruction":
            text = text.removeprefix(tokenizer.bos_token)
        wish = {"prompt": text, "n_predict": most, "temperature": 0.0, "cache_prompt": False}
        found = server.handle_completions(wish)
        said.append(found["content"] if "content" in found else found["choices"][0]["text"])
    return said


def _padded(items: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    batch = {
        name: pad_sequence([torch.tensor(item[name]) for item in items], batch_first=True, padding_value=value)
        for name, value in (("input_ids", 0), ("labels", IGNORED))
    }
    lengths = torch.tensor([len(item["input_ids"]) for item in items])
    return batch | {"attention_mask": (torch.arange(batch["labels"].shape[1]) < lengths[:, None]).long()}
