"""The ways to answer that are compared: base and tuned in one batch, two `generate()` calls, one with adapter names.

Knows a base with an adapter and prompts of ids; knows no process and no table.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from glmstudio.benchmarks.clock import Clock, peak_mib
from glmstudio.benchmarks.random_base import LORA, PAD
from glmstudio.benchmarks.rows import bench_rows
from glmstudio.benchmarks.ways import rendered
from glmstudio.inference.engine import generate
from glmstudio.inference.rows import Row
from glmstudio.models.loading import Base
from glmstudio.models.resident import BASE_NAME, Resident
from glmstudio.settings import GenerationSettings

TUNED = "tuned"
# Large enough that base and tuned soon say different things.
ADAPTER_SPREAD = 0.2
Answers = list[list[int]]
# (base, the adapter's folder) → a function of prompts and length that gives the base's answers, then the tuned ones.
Prepare = Callable[[Base, Path], Callable[[Sequence[list[int]], int], Answers]]


def _one_batch(base: Base, adapter: Path) -> Callable[[Sequence[list[int]], int], Answers]:
    resident = Resident(base)
    resident.load(TUNED, adapter)

    def answer(prompts: Sequence[list[int]], length: int) -> Answers:
        settings = GenerationSettings(max_new_tokens=length, repetition_stop=0)
        rows = [Row(ids, name) for name in (BASE_NAME, TUNED) for ids in prompts]
        answers: Answers = [[] for _ in rows]
        for column in generate(resident, rows, settings, should_stop=lambda: False):
            for answer, token in zip(answers, column.ids, strict=True):
                answer += [] if token is None else [token]
        return answers

    return answer


def _two_calls(base: Base, adapter: Path) -> Callable[[Sequence[list[int]], int], Answers]:
    model = PeftModel.from_pretrained(base.model, adapter).eval()

    def answer(prompts: Sequence[list[int]], length: int) -> Answers:
        answers = []
        for tuned in (False, True):
            with nullcontext() if tuned else model.disable_adapter():
                answers += _generated(model, base, prompts, length)
        return answers

    return answer


def _adapter_names(base: Base, adapter: Path) -> Callable[[Sequence[list[int]], int], Answers]:
    model = PeftModel.from_pretrained(base.model, adapter, adapter_name=TUNED).eval()

    def answer(prompts: Sequence[list[int]], length: int) -> Answers:
        names = [name for name in (BASE_NAME, TUNED) for _ in prompts]
        return _generated(model, base, [*prompts, *prompts], length, adapter_names=names)

    return answer


ANSWERING: dict[str, Prepare] = {
    "one-batch": _one_batch,
    "two-calls": _two_calls,
    "adapter-names": _adapter_names,
}


def answering_job(base: Base, job: dict[str, Any]) -> dict[str, Any]:
    """Tokens, seconds and answers of `prompts` rows with `new_tokens` each, after a short answer to warm up."""
    rows = bench_rows(job["rows"], job["prompts"], base.model.config.vocab_size)
    prompts = [row.ids[: row.prompt_length] for row in rendered(base, rows)]
    with tempfile.TemporaryDirectory() as place:
        _write_adapter(base, Path(place))
        answer = ANSWERING[job["way"]](base, Path(place))
    answer(prompts, 2)
    clock = Clock(base.device)
    answers = answer(prompts, job["new_tokens"])
    seconds = clock.seconds()
    return {
        "answers": answers,
        "tokens": sum(map(len, answers)),
        "seconds": seconds,
        "peak_mib": peak_mib(base.device),
    }


def _write_adapter(base: Base, folder: Path) -> None:
    lora = LORA[base.family.name]
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.lora_alpha, target_modules=list(lora.target_modules), task_type="CAUSAL_LM"
    )
    torch.manual_seed(1)
    model = get_peft_model(base.model.requires_grad_(False), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=ADAPTER_SPREAD)
    model.save_pretrained(str(folder))
    model.unload()


def _generated(model: Any, base: Base, prompts: Sequence[list[int]], length: int, **inputs: Any) -> Answers:
    """Greedy answers of transformers' own loop, without the end token and what is behind it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts], device=base.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=base.device)
    with torch.no_grad():
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=length, do_sample=False, **inputs)
    end = base.tokenizer.eos_token_id
    answers = made[:, longest:].tolist()
    return [answer[: answer.index(end)] if end in answer else answer for answer in answers]
