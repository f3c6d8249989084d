"""What is known about an adapter: the record beside it, the run that it came from, names that mean something elsewhere.

Reads small JSON files; knows no weights and no words.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from glmstudio.data import snapshot
from glmstudio.models.adapters.adapter_files import adapter_form
from glmstudio.models.base_names import HUB_NAME, public_name
from glmstudio.settings import PROMPT_STYLES, TrainingSettings

RECORD = "glmstudio.json"
CHECKPOINT = re.compile(r"best|last|checkpoint-\d+")
# From a checkpoint's run.json, which lies in the folder above.
RUN_KEYS = ("lora", "settings", "versions", "dataset", "total", "best_step", "best_eval_loss", "from_adapter")


def about_adapter(adapter: Path) -> dict[str, Any]:
    """`glmstudio.json` of an adapter with what `run.json` above it adds; prompt style, lengths and `base` are there.

    `recorded` says whether the adapter has such a record; adapters from elsewhere get the defaults. `base` is None
    where no file names it. Raises StudioError `adapter-missing` and those of `adapter_form`.
    """
    form = adapter_form(adapter)
    folder = adapter if adapter.is_dir() else adapter.parent
    record = record_of(folder / RECORD)
    run = _object(folder.parent / "run.json") if record.get("run") == folder.parent.name else {}
    found = {key: run[key] for key in RUN_KEYS if key in run} | record
    if found.get("from_adapter"):
        # The path is one of this machine.
        found["from_adapter"] = adapter_title(found["from_adapter"])
    return {"base": form.trained_on} | found | {"kind": form.kind}


def adapter_title(path: str) -> str:
    """What people call the adapter at `path`: `run-0001@best`, else its folder."""
    place = PurePath(path)
    return f"{place.parent.name}@{place.name}" if CHECKPOINT.fullmatch(place.name) else place.name


def dev_prompts(adapter: Path, about: Mapping[str, Any], count: int = 3) -> list[tuple[str, str]]:
    """(instruction, input) of the first dev rows that the adapter's run was held against; none where they are gone.

    The rows lie in the run's own folder where the command line trained, else in the workspace of the page.
    """
    run = adapter.resolve().parent
    for snapshots in (run / "snapshots", run.parent.parent / "data" / "snapshots"):
        if (folder := snapshots / str(about.get("snapshot_id"))).is_dir():
            return [(row.instruction, row.input) for row in snapshot.load(folder).dev[:count]]
    return []


def record_of(path: Path) -> dict[str, Any]:
    """What a `glmstudio.json` says, with the default style and lengths where it is silent or not there."""
    record, defaults = _object(path), TrainingSettings()
    lengths = {name: getattr(defaults, name) for name in ("max_source_length", "max_target_length")}
    style = record.get("prompt_style")
    return (
        lengths
        | record
        | {
            "prompt_style": style if style in PROMPT_STYLES else defaults.prompt_style,
            "recorded": bool(record),
        }
    )


def base_name(about: Mapping[str, Any], source: str | None) -> str:
    """What a card calls the base: as the record of a run says, also where `source`, from which it was loaded now, is
    called otherwise. Adapters from elsewhere often name a folder of another machine, which only a hub id outlives."""
    recorded = about.get("base_name") or public_name(about.get("base"))
    keep = bool(about.get("base")) and (about["recorded"] or HUB_NAME.fullmatch(recorded))
    return recorded if keep or not source else public_name(source)


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where it is not there or not readable: these files only describe."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
