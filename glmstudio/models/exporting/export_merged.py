"""Merged weights that were checked: merge in memory, write aside, load again, compare, move into place.

One copy of the base is in memory at a time. Knows no page and no training loop.
"""

import gc
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import about_adapter, base_name, dev_prompts
from glmstudio.models.adapters.adapter_base import base_doubt, refuse_other_weights
from glmstudio.models.adapters.adapter_files import adapter_form
from glmstudio.models.adapters.adapters import load_adapter
from glmstudio.models.base import Base
from glmstudio.models.chat_format import render_prompt
from glmstudio.models.checkpoint_files import read_json, weight_files
from glmstudio.models.devices import DTYPES
from glmstudio.models.exporting import model_card
from glmstudio.models.exporting.destinations import MARK, aside, free_name, require_room, size_of
from glmstudio.models.exporting.export_adapter import write_record
from glmstudio.models.exporting.export_result import ExportResult
from glmstudio.models.exporting.merge_check import PROMPTS, MergeCheck, compared, logits_of, tolerance
from glmstudio.models.exporting.merged_files import named_tensors, stored_dtype, write_rest
from glmstudio.models.exporting.merging import merge_lora
from glmstudio.models.exporting.shards import planned, write_shards
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import family_of
from glmstudio.models.fingerprint import fingerprint
from glmstudio.models.inspection.library import UNCHECKED
from glmstudio.models.loading import load_base
from glmstudio.models.positions import positions_of
from glmstudio.models.sources import folder_of
from glmstudio.settings import EXPORT_FORMS

CHECK_FILE = "merge_check.json"
# Card, tokenizer and indices beside the weights.
SPARE_BYTES = 100 * 10**6
# Asked where a base has no tokenizer: so many ids drawn at random.
RANDOM_LENGTH = 12

Progress = Callable[[int, int, str], None]
Prompts = Sequence[tuple[str, str]]


def _quiet(done: int, total: int, stage: str) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class _Wish:
    base_source: str
    source: Path
    adapter: Path
    destination: Path
    form: str
    loaded: torch.dtype
    target: torch.dtype
    device: str
    prompts: Prompts
    on_progress: Progress
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class _Expected:
    """What the merged model has to say, taken before the weights were changed."""

    ids: list[list[int]]
    base: list[torch.Tensor]
    tuned: list[torch.Tensor]
    limit: float
    family: Family
    tokenizer: Any


def export_merged(
    base_source: str | Path,
    adapter: str | Path,
    destination: str | Path,
    *,
    form: str = "native",
    dtype: str = "auto",
    device: str = "auto",
    prompts: Prompts | None = None,
    scores: Mapping[str, Any] | None = None,
    language: str = "en",
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportResult:
    """Merges a LoRA adapter into its base in float32, writes the weights, loads them again and checks them.

    `form` official is for ChatGLM-6B. `dtype` auto keeps the number type of the base's files. `prompts` are
    (instruction, input) pairs, by default dev rows of the adapter's run, rendered in the adapter's own style.
    `on_progress(done, total, stage)` counts layers in "merge", bytes in "write"; "load" and "check" are 0 or 1 of 1.

    Raises StudioError `merge-check-failed`: the files are then in `<destination>.unchecked` or, where
    that is there already, `<destination>-2.unchecked`; `merge-quantized`,
    `merge-ptuning`, `merge-form`, `export-not-empty`, `export-disk-small`, `export-stopped` (nothing is left of it),
    and those of loading.
    """
    adapter, destination = Path(adapter), Path(destination)
    source = folder_of(str(base_source))
    _refuse(source, adapter, form)
    about, weights = about_adapter(adapter), fingerprint(source)
    refuse_other_weights(adapter_form(adapter), str(base_source), weights)
    doubt = base_doubt(adapter, str(base_source), weights)
    with aside(destination) as folder:
        loaded = stored_dtype(source)
        wish = _Wish(
            str(base_source), source, adapter, destination, form, loaded, _target(dtype, loaded), device,
            prompts or dev_prompts(adapter, about) or PROMPTS, on_progress or _quiet, should_stop or _never,
        )  # fmt: skip
        expected = _write_merged(folder, wish, about)
        gc.collect()
        check = _checked(folder, wish, expected)
        name = base_name(about, wish.base_source)
        facts = model_card.CardFacts(destination.name, name, expected.family, about, expected.tokenizer, scores, check)
        (folder / "README.md").write_text(model_card.card(facts, language), encoding="utf-8")
        write_record(folder, about, name)
        if not check.passed:
            raise _failed(folder, destination, check)
    return ExportResult(destination, size_of(destination), check, doubt)


def _refuse(source: Path, adapter: Path, form: str) -> None:
    if form not in EXPORT_FORMS:
        raise StudioError("setting-choice", field="form", value=form, choices=", ".join(EXPORT_FORMS))
    if adapter_form(adapter).kind == "ptuning":
        raise StudioError("merge-ptuning", folder=str(adapter))
    if not (source / "config.json").is_file():
        raise StudioError("base-not-a-model", folder=str(source))
    config = read_json(source / "config.json")
    if config.get("quantization_bit") or config.get("quantization_config"):
        raise StudioError("merge-quantized", source=str(source))
    family = family_of(config, str(source))
    if form not in family.export_forms:
        raise StudioError("merge-form", family=family.title)


def _target(dtype: str, loaded: torch.dtype) -> torch.dtype:
    if dtype != "auto" and dtype not in DTYPES:
        raise StudioError("dtype-unknown", dtype=dtype, choices=", ".join(("auto", *DTYPES)))
    return loaded if dtype == "auto" else DTYPES[dtype]


def _write_merged(folder: Path, wish: _Wish, about: Mapping[str, Any]) -> _Expected:
    weights = sum(file.stat().st_size for file in weight_files(wish.source))
    require_room(wish.destination, SPARE_BYTES + weights * wish.target.itemsize // wish.loaded.itemsize)
    wish.on_progress(0, 1, "load")
    base = load_base(wish.base_source, device=wish.device, dtype=name_of(wish.loaded))
    ids = _prompt_ids(base, about, wish.prompts)
    before = logits_of(base.model, ids)
    tuned = load_adapter(base, wish.adapter)
    after = logits_of(tuned, ids)
    linears = sum(isinstance(module, torch.nn.Linear) for module in base.model.modules())
    limit = tolerance((wish.loaded, wish.target), linears)
    merged = merge_lora(
        tuned,
        wish.target,
        on_layer=lambda done, total: wish.on_progress(done, total, "merge"),
        should_stop=wish.should_stop,
    )
    named = named_tensors(merged, wish.form) if merged is not None else {}
    whole = merged is not None and write_shards(
        folder,
        planned(named),
        named.items(),
        on_progress=lambda done, total: wish.on_progress(done, total, "write"),
        should_stop=wish.should_stop,
    )
    if not whole:
        raise StudioError("export-stopped", folder=str(wish.destination))
    write_rest(folder, base, wish.source, wish.form, wish.target)
    return _Expected(ids, before, after, limit, base.family, base.tokenizer)


def _prompt_ids(base: Base, about: Mapping[str, Any], prompts: Prompts) -> list[list[int]]:
    if base.tokenizer is None:
        drawn = torch.Generator().manual_seed(0)
        shape = (len(prompts), RANDOM_LENGTH)
        return torch.randint(base.model.config.vocab_size, shape, generator=drawn).tolist()
    style, length = about["prompt_style"], about["max_source_length"]
    rendered = (
        render_prompt(base.tokenizer, base.family, *prompt, max_source_length=length, style=style).ids
        for prompt in prompts
    )
    return [ids[: positions_of(base.model).limit or None] for ids in rendered]


def _checked(folder: Path, wish: _Wish, expected: _Expected) -> MergeCheck:
    wish.on_progress(0, 1, "check")
    again = load_base(folder, device=wish.device, dtype=name_of(wish.target))
    logits = logits_of(again.model, expected.ids)
    check = compared(expected.base, expected.tuned, logits, expected.limit, name_of(wish.target))
    (folder / CHECK_FILE).write_text(json.dumps(check.as_json(), indent=2) + "\n", encoding="utf-8")
    wish.on_progress(1, 1, "check")
    return check


def _failed(folder: Path, destination: Path, check: MergeCheck) -> StudioError:
    """Keeps the files under a name that nobody takes for the whole model."""
    kept = free_name(destination.parent, destination.name, UNCHECKED)
    os.replace(folder, kept)
    (kept / MARK).unlink()
    numbers = {name: f"{getattr(check, name):.2e}" for name in ("relative", "tolerance", "max_abs")}
    return StudioError("merge-check-failed", folder=str(kept), dtype=check.dtype, **numbers)


def name_of(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
