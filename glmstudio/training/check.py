"""Everything that is wrong or worth knowing before a run, all at once, as codes with numbers. Trains nothing."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from glmstudio.data.example import Example
from glmstudio.data.quality import Finding, dataset_findings
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings, out_of_bounds

if TYPE_CHECKING:
    from glmstudio.models.loading import Base

ORDER = ("error", "warning", "info")


def check(
    base: "Base | None",
    train: Sequence[Example],
    dev: Sequence[Example],
    lora: LoraSettings,
    settings: TrainingSettings,
) -> list[Finding]:
    """Findings, errors first: with one of those the run would fail. Without a base, lengths and layers are not checked.

    Rows are told by id, or by their 1-based place among train and then dev rows. Codes of errors: `setting-bounds`,
    `setting-choice`, `train-empty`, `base-not-ready`, `no-tokenizer`, `lora-targets`; of warnings: `no-dev`,
    `prompt-cut`, `target-cut`, `batch-beyond-rows` and those of `dataset_findings`; of the rest: `plan`.
    """
    found = [_of_error(error) for error in (*out_of_bounds(lora), *out_of_bounds(settings))]
    in_bounds = not found
    found += dataset_findings([*train, *dev])
    found += _of_counts(train, dev, settings) if in_bounds else []
    found += [Finding("train-empty", "error")] if not train else []
    found += [Finding("no-dev", "warning")] if train and not dev else []
    found += _of_base(base, lora)
    if base is not None and base.tokenizer is not None and in_bounds:
        found += _of_lengths(base, [*train, *dev], settings)
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def optimizer_steps(rows: int, settings: TrainingSettings) -> int:
    """How many optimizer steps a run of so many training rows makes."""
    in_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    return math.ceil(settings.num_train_epochs * math.ceil(rows / in_step))


def _of_error(error: StudioError) -> Finding:
    return Finding(error.code, "error", params=dict(error.params))


def _of_counts(train: Sequence[Example], dev: Sequence[Example], settings: TrainingSettings) -> Iterator[Finding]:
    if not train:
        return
    in_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    if in_step > len(train):
        yield Finding("batch-beyond-rows", "warning", len(train), params={"batch": in_step})
    steps = optimizer_steps(len(train), settings)
    yield Finding("plan", "info", len(train), params={"dev": len(dev), "steps": steps})


def _of_base(base: "Base | None", lora: LoraSettings) -> Iterator[Finding]:
    if base is None:
        yield Finding("base-not-ready", "error")
        return
    if base.tokenizer is None:
        yield Finding("no-tokenizer", "error", params={"source": base.source})
    from glmstudio.models.resident import lora_targets

    try:
        lora_targets(base, lora)
    except StudioError as error:
        yield _of_error(error)


def _of_lengths(base: "Base", examples: Sequence[Example], settings: TrainingSettings) -> Iterator[Finding]:
    limits = settings.max_source_length, settings.max_target_length
    texts = ((example.instruction, example.input, example.target) for example in examples)
    sizes = [_measured(base.tokenizer, base.family, *text, *limits) for text in texts]
    for code, limit, (size, cut) in zip(("prompt-cut", "target-cut"), limits, ((0, 1), (2, 3)), strict=True):
        places = [place for place, row in enumerate(sizes) if row[cut]]
        if places:
            rows = tuple(examples[place].id or place + 1 for place in places)
            longest = max(sizes[place][size] for place in places)
            yield Finding(code, "warning", len(rows), rows, {"limit": limit, "longest": longest})


@functools.lru_cache(maxsize=200_000)
def _measured(
    tokenizer: Any, family: Any, instruction: str, input: str, target: str, source_limit: int, target_limit: int
) -> tuple[int, int, int, int]:
    """(tokens of the prompt, of them cut, tokens of the target, of them cut). Kept: a form asks again and again."""
    from glmstudio.models.chat_format import render_example

    row = render_example(
        tokenizer,
        family,
        instruction,
        input,
        target,
        max_source_length=source_limit,
        max_target_length=target_limit,
    )
    target_tokens = len(row.ids) - row.prompt_length - 1
    return row.prompt_length + row.cut_prompt, row.cut_prompt, target_tokens + row.cut_target, row.cut_target
