"""Which bases a workspace has used, the last one first. Knows names only: no folder, no hub."""

import json
import os
from pathlib import Path

from glmstudio.workspace import Workspace

REMEMBERED = 50


def remember(root: Path, source: str) -> None:
    """Puts `source` at the head of the bases that were used, in `data/bases.json` of the workspace."""
    if remembered(root)[:1] == [source]:
        return
    sources = [source, *(name for name in remembered(root) if name != source)][:REMEMBERED]
    path = _list_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(sources, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)


def remembered(root: Path) -> list[str]:
    """The bases that were used, the last one first; none where the list is absent or damaged."""
    try:
        sources = json.loads(_list_path(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [source for source in sources if isinstance(source, str)] if isinstance(sources, list) else []


def _list_path(root: Path) -> Path:
    return Workspace(root).data / "bases.json"
