"""Page and command line stand before one door: they call verbs of Studio and reach nothing behind it."""

import ast
import importlib
from pathlib import Path

import pytest

from glmstudio.studio import Studio
from tests.unit.test_house import PACKAGE, ROOT

VERBS = {name for name in dir(Studio) if not name.startswith("_")}
# Whoever stands before the door; `benchmarks` measure what lies behind it.
BEFORE = sorted([*(PACKAGE / "ui").rglob("*.py"), *(PACKAGE / "commands").rglob("*.py"), ROOT / "app.py"])
# What a Studio is called there.
NAMES = ("studio", "_studio")


def is_studio(node: ast.AST) -> bool:
    return getattr(node, "id", None) in NAMES or getattr(node, "attr", None) in NAMES


def past_the_door(tree: ast.AST) -> list[str]:
    """What is used of a Studio that is no verb, and what is reached through something that it holds."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if is_studio(node.value) and node.attr not in VERBS:
            found.append(f"{node.lineno}: studio.{node.attr}")
        if isinstance(node.value, ast.Attribute) and is_studio(node.value.value):
            found.append(f"{node.lineno}: studio.{node.value.attr}.{node.attr}")
    return found


def working_imports(tree: ast.AST) -> list[str]:
    """What is imported from behind the door that is no type."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[:2] == ["glmstudio", "studio"]:
            module = importlib.import_module(node.module)
            names = [alias.name for alias in node.names if not isinstance(getattr(module, alias.name), type)]
            found += [f"{node.lineno}: {node.module}.{name}" for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("glmstudio.studio")]
            found += [f"{node.lineno}: {name}" for name in names]
    return found


@pytest.mark.parametrize("path", BEFORE, ids=lambda path: path.stem)
def test_nobody_reaches_past_the_door(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert past_the_door(tree) + working_imports(tree) == []


@pytest.mark.parametrize(
    "line",
    [
        "self._studio._queue",
        "studio.store",
        "tab.studio.queue.waiting()",
        "studio.probing.active",
        "from glmstudio.studio.bases import with_hub",
        "import glmstudio.studio.run_queue",
    ],
)
def test_a_way_past_the_door_is_seen(line):
    tree = ast.parse(line)
    assert past_the_door(tree) + working_imports(tree) != []


def test_what_a_studio_holds_is_its_own(tmp_path):
    from glmstudio.workspace import Workspace

    studio = Studio(Workspace(tmp_path))
    studio.close()
    assert [name for name in vars(studio) if not name.startswith("_")] == []
