"""The ways to answer that are compared: base and tuned in one batch, two `generate()` calls, one with adapter names;
and a set of rows with places that fill again, in fixed batches, or by two calls for every batch.

Knows a base with an adapter and prompts of ids; knows no process and no table.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from glmstudio.benchmarks.bandwidth import read_rate, step_bytes
from glmstudio.benchmarks.clock import Clock, peak_mib
from glmstudio.benchmarks.random_base import END, LORA, PAD
from glmstudio.benchmarks.rows import bench_rows
from glmstudio.benchmarks.ways import rendered
from glmstudio.evaluation.evaluate import BATCH_ROWS
from glmstudio.inference.engine import answers, generate
from glmstudio.inference.rows import Row
from glmstudio.models.base import Base
from glmstudio.models.prompts.dialogue import end_ids
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


def _refilled(base: Base, adapter: Path) -> Callable[[Sequence[list[int]], int], Answers]:
    resident = Resident(base)
    resident.load(TUNED, adapter)

    def answer(prompts: Sequence[list[int]], length: int) -> Answers:
        settings = GenerationSettings(max_new_tokens=length, repetition_stop=0)
        rows = [Row(ids, name) for ids in prompts for name in (BASE_NAME, TUNED)]
        said: Answers = [[] for _ in rows]
        for finished in answers(resident, rows, settings, max_rows=BATCH_ROWS, should_stop=lambda: False):
            said[finished.number] = finished.ids
        return said[::2] + said[1::2]

    return answer


def _in_batches(size: int, prepare: Prepare) -> Prepare:
    """The way of `prepare`, `size` prompts at a time, those of like length together."""

    def prepared(base: Base, adapter: Path) -> Callable[[Sequence[list[int]], int], Answers]:
        of_batch = prepare(base, adapter)

        def answer(prompts: Sequence[list[int]], length: int) -> Answers:
            order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
            said: Answers = [[] for _ in range(2 * len(prompts))]
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                of_rows = of_batch([prompts[place] for place in batch], length)
                for place, of_base, of_tuned in zip(batch, of_rows, of_rows[len(batch) :], strict=False):
                    said[place], said[len(prompts) + place] = of_base, of_tuned
            return said

        return answer

    return prepared


ANSWERING: dict[str, Prepare] = {
    "one-batch": _one_batch,
    "two-calls": _two_calls,
    "adapter-names": _adapter_names,
    "refilled": _refilled,
    "fixed-batches": _in_batches(BATCH_ROWS // 2, _one_batch),
    "two-calls-of-16": _in_batches(16, _two_calls),
}
# How often a way reads the weights for one more token of every row.
READS = {"one-batch": 1, "adapter-names": 1, "two-calls": 2}
# One id in so many ends an answer of the set of rows, which makes their lengths as uneven as real ones.
MEAN_ANSWER = 40


def answering_job(base: Base, job: dict[str, Any]) -> dict[str, Any]:
    """Tokens, seconds and answers of `prompts` rows with up to `new_tokens` each, after a short answer to warm up.

    Where the way is one of `READS`, `bandwidth_share` too: the bytes of the weights that one more token of every row
    needs over what the machine reads in that time.
    """
    rows = bench_rows(job["rows"], job["prompts"], base.model.config.vocab_size)
    prompts = [row.ids[: row.prompt_length] for row in rendered(base, rows)]
    if job["way"] not in READS:
        base.model.generation_config.eos_token_id = list(range(END, base.model.config.vocab_size, MEAN_ANSWER))
    with tempfile.TemporaryDirectory() as place:
        _write_adapter(base, Path(place))
        answer = ANSWERING[job["way"]](base, Path(place))
    answer(prompts[:2] if job["way"] not in READS else prompts, 2)
    clock = Clock(base.device)
    answers = answer(prompts, job["new_tokens"])
    seconds = clock.seconds()
    result = {
        "answers": answers,
        "tokens": sum(map(len, answers)),
        "seconds": seconds,
        "peak_mib": peak_mib(base.device),
    }
    if job["way"] in READS and job["new_tokens"] > 1:
        clock = Clock(base.device)
        answer(prompts, 1)
        first = clock.seconds()
        steps = READS[job["way"]] * (job["new_tokens"] - 1)
        result["bandwidth_share"] = step_bytes(base.model) * steps / read_rate(base.device) / (seconds - first)
    return result


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
    ends = end_ids(base.tokenizer, base.family, base.model.generation_config.eos_token_id)
    return [list(takewhile(lambda token: token not in ends, answer)) for answer in made[:, longest:].tolist()]
