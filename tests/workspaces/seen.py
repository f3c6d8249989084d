"""What a person finds in a workspace that is opened, as plain values: `make` writes them down, the test compares."""

import dataclasses
from pathlib import Path
from typing import Any

from glmstudio.data.row_reader import Query
from glmstudio.data.store import Store
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings
from glmstudio.studio import Studio
from glmstudio.workspace import Workspace

ROWS = 1000


def seen(studio: Studio, root: Path) -> dict[str, Any]:
    """Everything that is there behind `Studio.start`, before anybody does anything."""
    runs, store = [run.id for run in studio.runs()], Store(Workspace(root).database_url)
    queue = studio.look(fresh=True).queue
    return plain(
        {
            "datasets": studio.datasets(),
            "rows": studio.page(Query(), limit=ROWS).rows,
            "deleted": studio.page(Query(deleted=True), limit=ROWS).rows,
            "imports": studio.imports(),
            "verdicts": list(store.verdicts.newest()),
            "runs": {run.id: run for run in studio.runs()},
            "curves": {run_id: curve(studio, run_id) for run_id in runs},
            "adapters": [ref.name for ref in studio.adapters()],
            "scoreboards": list(studio.look(fresh=True).boards),
            "queue": {"waiting": queue.waiting, "held": queue.held},
            "damaged": [str(error) for error in studio.damaged()],
        }
    )


def answers(studio: Studio, names: list[str], instruction: str, input: str) -> dict[str, dict[str, str]]:
    """What base and adapter say, greedily, by the adapter's name."""
    found = {}
    for name in names:
        *_, last = studio.compare(instruction, input, AdapterRef(*name.split("@")), GenerationSettings())
        base, tuned = last.rows
        found[name] = {"base": base.text, "tuned": tuned.text, "digest": last.adapter.digest}
    return found


def curve(studio: Studio, run_id: str) -> dict[str, dict[str, Any]]:
    """{"train" or "eval": {step: loss}}, and of events what they are called."""
    found: dict[str, dict[str, Any]] = {}
    for record in studio.metrics(run_id)[0]:
        if record.kind != "system":
            found.setdefault(record.kind, {})[str(record.step)] = record.values.get("code", record.values.get("loss"))
    return found


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
