"""A finished adapter for other people: PEFT's two files or those of P-Tuning v2, its record and a card.

Loads no base; of the base only the tokenizer is read, where it is on this machine.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_about import RECORD, about_adapter, base_name
from glmstudio.models.adapters.adapter_base import base_doubt, refuse_other_weights
from glmstudio.models.adapters.adapter_files import AdapterForm, adapter_form, read_lora
from glmstudio.models.base_names import public_name
from glmstudio.models.checkpoint_files import read_json
from glmstudio.models.exporting import model_card
from glmstudio.models.exporting.destinations import aside, size_of
from glmstudio.models.exporting.export_result import ExportResult
from glmstudio.models.exporting.shards import planned, write_shards
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import FAMILIES, family_of
from glmstudio.models.fingerprint import fingerprint
from glmstudio.models.loading import load_tokenizer
from glmstudio.models.sources import folder_here


def export_adapter(
    adapter: str | Path,
    destination: str | Path,
    *,
    base_source: str | None = None,
    about: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    language: str = "en",
) -> ExportResult:
    """Writes the adapter's folder; LoRA of any form that is read becomes PEFT's. Optimizer and random state stay here.

    The base is called by a name that others know (`public_name`). `base_source` is that of the adapter's record where
    it is not given; its tokenizer shows the prompt, and the card does without where it is not on this machine. `about`
    adds to what `about_adapter` finds; `scores` is the JSON of `evaluate`. Raises StudioError `export-base-unknown`,
    `export-not-empty`, `adapter-missing` and those of unreadable files.
    """
    adapter, destination = Path(adapter), Path(destination)
    known = about_adapter(adapter) | dict(about or {})
    source = base_source or known.get("base")
    if not source:
        raise StudioError("export-base-unknown", folder=str(adapter))
    form, weights = adapter_form(adapter), _fingerprint_here(source)
    refuse_other_weights(form, source, weights)
    doubt, name = base_doubt(adapter, source, weights), base_name(known, base_source)
    family, tokenizer = _family_and_tokenizer(source, known)
    facts = model_card.CardFacts(destination.name, name, family, known, tokenizer, scores)
    with aside(destination) as folder:
        write_adapter(folder, form, name)
        write_record(folder, known, name)
        (folder / "README.md").write_text(model_card.card(facts, language), encoding="utf-8")
    return ExportResult(destination, size_of(destination), doubt=doubt)


def write_record(folder: Path, about: Mapping[str, Any], base: str) -> None:
    """`glmstudio.json`, by which this program knows the prompt style again; no path of this machine is in it."""
    record = {key: value for key, value in about.items() if key not in ("kind", "recorded", "versions", "snapshot_id")}
    text = json.dumps(record | {"base": base}, ensure_ascii=False, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def write_adapter(folder: Path, form: AdapterForm, base: str) -> None:
    """The adapter's files alone, LoRA of any form that is read as PEFT's, with `base` as what it was trained on."""
    if form.kind == "ptuning":
        for file in (form.config, *form.weights):
            shutil.copyfile(file, folder / file.name)
        return
    lora = read_lora(form)
    config = lora.config
    config.base_model_name_or_path, config.inference_mode = base, True
    if config.target_modules is None:
        config.target_modules = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in lora.state})
    config.save_pretrained(folder)
    write_shards(folder, planned(lora.state), lora.state.items())
    os.replace(folder / "model.safetensors", folder / "adapter_model.safetensors")


def _family_and_tokenizer(source: str, about: Mapping[str, Any]) -> tuple[Family, Any]:
    folder = _known_folder(source)
    if folder is None or not (folder / "config.json").is_file():
        name = about.get("family", "")
        return FAMILIES.get(name) or Family(name or "?", name or public_name(source)), None
    family = family_of(read_json(folder / "config.json"), source)
    try:
        return family, load_tokenizer(folder)
    except StudioError:
        return family, None


def _fingerprint_here(source: str) -> str:
    """That of a base whose weights are on this machine, else ""."""
    folder = _known_folder(source)
    try:
        return fingerprint(folder) if folder else ""
    except StudioError:
        return ""


def _known_folder(source: str) -> Path | None:
    """The folder of a base where it is on this machine: a card does without."""
    try:
        return folder_here(source)
    except StudioError:
        return None
