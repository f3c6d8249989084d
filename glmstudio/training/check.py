"""Everything that is wrong or worth knowing before a run, all at once, as codes with numbers. Trains nothing."""

import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from glmstudio.data.kept_rows import RowSet
from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings, out_of_bounds
from glmstudio.training.reporting import missing

if TYPE_CHECKING:
    from glmstudio.models.base import Base
    from glmstudio.training.token_counts import RowSizes

ORDER = ("error", "warning", "info")
# The official rate of P-Tuning v2. A prefix without projection hardly leaves its random start at LoRA's rates.
USUAL_PREFIX_RATE, SMALL_PREFIX_RATE = 2e-2, 5e-3


def check(
    base: "Base | None",
    rows: RowSet,
    lora: LoraSettings,
    settings: TrainingSettings,
    sizes: "Callable[[], RowSizes]",
) -> list[Finding]:
    """Findings, errors first: with one of those the run would fail. Without a base, lengths and layers are not checked.
    `sizes` gives those of the rows; it is asked only where the base can be asked in this style.

    Rows are told by id, or by their 1-based place among train and then dev rows. Codes of errors: `setting-bounds`,
    `setting-choice`, `train-empty`, `base-not-ready`, `no-tokenizer`, `prompt-frame`, `no-chat-template`,
    those of a dialogue, `no-end-token`, those of `unsupported`, `lora-targets`, `ptuning-family`, `positions-missing`,
    `report-missing`, `launch-devices`, `early-stopping-no-dev`; of warnings: `no-dev`, `launch-memory`, `ptuning-rate`,
    `dtype-slow`, `chat-template-dated`, `prompt-cut`, `target-cut`, `positions-beyond`, `batch-beyond-rows`, those of
    `findings_of`; of the rest: `plan` (rows, steps and, with a base, the tokens of the longest row).
    """
    found = [_of_error(error) for error in (*out_of_bounds(lora), *out_of_bounds(settings))]
    in_bounds = not found
    found += rows.findings
    found += [Finding("train-empty", "error")] if not rows.train else []
    found += [Finding("no-dev", "warning")] if rows.train and not rows.dev else []
    found += [Finding("early-stopping-no-dev", "error")] if settings.early_stopping_patience and not rows.dev else []
    found += _of_base(base, lora, settings)
    found += _of_processes(base, settings)
    found += _of_rate(settings)
    found += _of_numbers(base)
    found += [_of_error(error)] if in_bounds and (error := missing(settings.report_to)) else []
    unreadable = list(_of_prompts(base, settings)) if base is not None else []
    found += unreadable or _of_dates(base, settings)
    if rows.train and in_bounds:
        found += _of_rows(None if unreadable else base, rows, settings, sizes)
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def optimizer_steps(rows: int, settings: TrainingSettings) -> int:
    """How many optimizer steps a run of so many training rows makes."""
    return math.ceil(settings.num_train_epochs * math.ceil(rows / settings.rows_in_step))


def _of_error(error: StudioError) -> Finding:
    return Finding(error.code, "error", params=dict(error.params))


def _of_rows(
    base: "Base | None", rows: RowSet, settings: TrainingSettings, sizes_of: "Callable[[], RowSizes]"
) -> Iterator[Finding]:
    if settings.rows_in_step > rows.train:
        yield Finding("batch-beyond-rows", "warning", rows.train, params={"batch": settings.rows_in_step})
    plan: dict[str, object] = {"dev": rows.dev, "steps": optimizer_steps(rows.train, settings)}
    if base is not None:
        sizes = sizes_of()
        yield from _of_cuts(rows, sizes, settings)
        yield from _of_positions(base, rows, sizes)
        plan["longest"] = sizes.longest()
    yield Finding("plan", "info", rows.train, params=plan)


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


def _of_cuts(rows: RowSet, sizes: "RowSizes", settings: TrainingSettings) -> Iterator[Finding]:
    cuts = {
        "prompt": (settings.max_source_length, sizes.prompt, sizes.prompt_cut),
        "target": (settings.max_target_length, sizes.target, sizes.target_cut),
    }
    for part, (limit, tokens, cut) in cuts.items():
        if cut.any():
            params = {"limit": limit, "most": int(tokens[cut].max())}
            yield _of_numbered(f"{part}-cut", "warning", rows, cut.nonzero()[0].tolist(), params)


def _of_positions(base: "Base", rows: RowSet, sizes: "RowSizes") -> Iterator[Finding]:
    from glmstudio.models.positions import positions_of

    positions = positions_of(base.model)
    may_be = (sizes.row > positions.limit).nonzero()[0].tolist() if positions.limit else []
    beyond = {number: size for number, size in zip(may_be, sizes.exact(may_be), strict=True) if size > positions.limit}
    if beyond:
        code, severity = ("positions-missing", "error") if positions.table else ("positions-beyond", "warning")
        params = {"limit": positions.limit, "most": max(beyond.values())}
        yield _of_numbered(code, severity, rows, list(beyond), params)


def _of_numbered(code: str, severity: str, rows: RowSet, numbers: list[int], params: dict[str, object]) -> Finding:
    places = tuple(rows.facts[number].place for number in numbers)
    return Finding(code, severity, len(places), places, params)
