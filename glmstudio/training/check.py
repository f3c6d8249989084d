"""Everything that is wrong or worth knowing before a run, all at once, as codes with numbers. Trains nothing."""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glmstudio.data.example import Example
from glmstudio.data.quality import Finding, dataset_findings
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings, out_of_bounds
from glmstudio.training.reporting import missing

if TYPE_CHECKING:
    from glmstudio.models.base import Base
    from glmstudio.models.chat_format import Rendered

ORDER = ("error", "warning", "info")
# Of the train rows and of the dev rows.
Sizes = tuple["Sequence[RowSize]", "Sequence[RowSize]"]
# The official rate of P-Tuning v2. A prefix without projection hardly leaves its random start at LoRA's rates.
USUAL_PREFIX_RATE, SMALL_PREFIX_RATE = 2e-2, 5e-3


def check(
    base: "Base | None",
    train: Sequence[Example],
    dev: Sequence[Example],
    lora: LoraSettings,
    settings: TrainingSettings,
    sizes: Callable[[], Sizes] | None = None,
) -> list[Finding]:
    """Findings, errors first: with one of those the run would fail. Without a base, lengths and layers are not checked.
    `sizes` gives those of the rows to whoever has them; it is asked only where the base can be asked in this style.

    Rows are told by id, or by their 1-based place among train and then dev rows. Codes of errors: `setting-bounds`,
    `setting-choice`, `train-empty`, `base-not-ready`, `no-tokenizer`, `prompt-frame`, `no-chat-template`,
    those of a dialogue, `no-end-token`, those of `unsupported`, `lora-targets`, `ptuning-family`, `positions-missing`,
    `report-missing`, `launch-devices`, `early-stopping-no-dev`; of warnings: `no-dev`, `launch-memory`, `ptuning-rate`,
    `dtype-slow`, `chat-template-dated`, `prompt-cut`, `target-cut`, `positions-beyond`, `batch-beyond-rows`, those of
    `dataset_findings`; of the rest: `plan` (rows, steps and, with a base, the tokens of the longest row).
    """
    found = [_of_error(error) for error in (*out_of_bounds(lora), *out_of_bounds(settings))]
    in_bounds = not found
    found += dataset_findings([*train, *dev])
    found += [Finding("train-empty", "error")] if not train else []
    found += [Finding("no-dev", "warning")] if train and not dev else []
    found += [Finding("early-stopping-no-dev", "error")] if settings.early_stopping_patience and not dev else []
    found += _of_base(base, lora, settings)
    found += _of_processes(base, settings)
    found += _of_rate(settings)
    found += _of_numbers(base)
    found += [_of_error(error)] if in_bounds and (error := missing(settings.report_to)) else []
    unreadable = list(_of_prompts(base, settings)) if base is not None else []
    found += unreadable or _of_dates(base, settings)
    if train and in_bounds:
        known = None if base is None or unreadable else sizes or (lambda: sizes_of(base, train, dev, settings))
        found += _of_rows(base, train, dev, settings, known)
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def optimizer_steps(rows: int, settings: TrainingSettings) -> int:
    """How many optimizer steps a run of so many training rows makes."""
    return math.ceil(settings.num_train_epochs * math.ceil(rows / settings.rows_in_step))


def sizes_of(base: "Base", train: Sequence[Example], dev: Sequence[Example], settings: TrainingSettings) -> Sizes:
    """Of each row. Raises StudioError as rendering does."""
    return _sizes(base, train, settings), _sizes(base, dev, settings)


def _of_error(error: StudioError) -> Finding:
    return Finding(error.code, "error", params=dict(error.params))


def _of_rows(
    base: "Base | None",
    train: Sequence[Example],
    dev: Sequence[Example],
    settings: TrainingSettings,
    known: Callable[[], Sizes] | None,
) -> Iterator[Finding]:
    if settings.rows_in_step > len(train):
        yield Finding("batch-beyond-rows", "warning", len(train), params={"batch": settings.rows_in_step})
    plan: dict[str, object] = {"dev": len(dev), "steps": optimizer_steps(len(train), settings)}
    if base is not None and known is not None:
        examples = [*train, *dev]
        sizes = [size for part in known() for size in part]
        yield from _of_cuts(examples, sizes, settings)
        yield from _of_positions(base, examples, sizes)
        plan["longest"] = max(size.row for size in sizes)
    yield Finding("plan", "info", len(train), params=plan)


def _of_base(base: "Base | None", lora: LoraSettings, settings: TrainingSettings) -> Iterator[Finding]:
    if base is None:
        yield Finding("base-not-ready", "error")
        return
    from glmstudio.models.adapters.prefix import PrefixShape
    from glmstudio.models.resident import lora_targets
    from glmstudio.models.supported import unsupported

    if error := unsupported(base.model.config, base.family, base.source):
        yield _of_error(error)
        return
    try:
        if settings.method == "ptuning":
            PrefixShape.of(base.model.config, base.source)
        else:
            lora_targets(base, lora)
    except StudioError as error:
        yield _of_error(error)


def _of_numbers(base: "Base | None") -> Iterator[Finding]:
    from glmstudio.models.devices import slow_numbers

    if base is not None and (slow := slow_numbers(base.dtype, base.device)):
        yield slow


def _of_processes(base: "Base | None", settings: TrainingSettings) -> Iterator[Finding]:
    """Of processes that are still to be started here."""
    if base is None or settings.num_processes == 1 or "WORLD_SIZE" in os.environ:
        return
    params = {"processes": settings.num_processes, "devices": settings.num_processes}
    if base.device.type == "cuda":
        import torch

        params["devices"] = torch.cuda.device_count()
    if params["devices"] < params["processes"]:
        yield Finding("launch-devices", "error", params=params)
    yield Finding("launch-memory", "warning", params=params)


def _of_rate(settings: TrainingSettings) -> Iterator[Finding]:
    plain_prefix = settings.method == "ptuning" and not settings.prefix_projection
    if plain_prefix and settings.learning_rate < SMALL_PREFIX_RATE:
        rates = {"rate": f"{settings.learning_rate:g}", "usual": f"{USUAL_PREFIX_RATE:g}"}
        yield Finding("ptuning-rate", "warning", params=rates)


def _of_prompts(base: "Base", settings: TrainingSettings) -> Iterator[Finding]:
    """What keeps this base from being asked in the chosen style."""
    from glmstudio.models.chat_format import render_example

    limits = {name: getattr(settings, name) for name in ("max_source_length", "max_target_length")}
    try:
        render_example(base.tokenizer, base.family, "?", "", "?", style=settings.prompt_style, **limits)
    except StudioError as error:
        yield _of_error(error)


def _of_dates(base: "Base | None", settings: TrainingSettings) -> list[Finding]:
    from glmstudio.models.prompts.dialogue import TEMPLATE_DATE, dialogue_of
    from glmstudio.models.prompts.prompt_style import CHAT

    if base is None or settings.prompt_style != CHAT or not dialogue_of(base.tokenizer, base.family).dated:
        return []
    return [Finding("chat-template-dated", "warning", params={"date": f"{TEMPLATE_DATE:%Y-%m-%d}"})]


def _of_cuts(examples: Sequence[Example], sizes: "Sequence[RowSize]", settings: TrainingSettings) -> Iterator[Finding]:
    limits = {"prompt": settings.max_source_length, "target": settings.max_target_length}
    for part, limit in limits.items():
        places = [place for place, size in enumerate(sizes) if getattr(size, f"cut_{part}")]
        if places:
            rows = tuple(examples[place].id or place + 1 for place in places)
            most = max(getattr(sizes[place], part) for place in places)
            yield Finding(f"{part}-cut", "warning", len(rows), rows, {"limit": limit, "most": most})


def _of_positions(base: "Base", examples: Sequence[Example], sizes: "Sequence[RowSize]") -> Iterator[Finding]:
    from glmstudio.models.positions import positions_of

    positions = positions_of(base.model)
    places = [place for place, size in enumerate(sizes) if positions.limit and size.row > positions.limit]
    if places:
        rows = tuple(examples[place].id or place + 1 for place in places)
        code, severity = ("positions-missing", "error") if positions.table else ("positions-beyond", "warning")
        params = {"limit": positions.limit, "most": max(sizes[place].row for place in places)}
        yield Finding(code, severity, len(rows), rows, params)


@dataclass(frozen=True)
class RowSize:
    """Tokens of a row: of its prompt and its target as they are, of each what is cut, and of the row that is left."""

    prompt: int
    cut_prompt: int
    target: int
    cut_target: int
    row: int

    @classmethod
    def of(cls, row: "Rendered") -> "RowSize":
        target = len(row.ids) - row.prompt_length - 1 + row.cut_target
        return cls(row.prompt_length + row.cut_prompt, row.cut_prompt, target, row.cut_target, len(row.ids))

    @property
    def trained(self) -> tuple[int, int]:
        """(tokens, target tokens) as it will be trained on, as long as the lengths allow."""
        return self.row, self.target - self.cut_target + 1


def _sizes(base: "Base", examples: Sequence[Example], settings: TrainingSettings) -> list[RowSize]:
    limits = settings.max_source_length, settings.max_target_length, settings.prompt_style
    texts = ((example.instruction, example.input, example.target) for example in examples)
    return [_size(base.tokenizer, base.family, *text, *limits) for text in texts]


# Kept, because a form asks again with every change.
@functools.lru_cache(maxsize=200_000)
def _size(
    tokenizer: Any,
    family: Any,
    instruction: str,
    input: str,
    target: str,
    source_limit: int,
    target_limit: int,
    style: str,
) -> RowSize:
    from glmstudio.models.chat_format import render_example

    row = render_example(
        tokenizer,
        family,
        instruction,
        input,
        target,
        max_source_length=source_limit,
        max_target_length=target_limit,
        style=style,
    )
    return RowSize.of(row)
