"""requirements.txt is what the program imports, neither less nor more; what that brings along is pinned too."""

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# Used where they are installed: trackers, another hub, what benchmarks are compared with or drive the page with.
OPTIONAL = {"wandb", "swanlab", "trackio", "modelscope_hub", "llamafactory", "playwright"}


def pinned(*files: str) -> dict[str, str]:
    lines = [line for file in files for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith(("#", "-c "))]
    return {canonicalize_name(name): version for name, version in pairs}


def imported() -> set[str]:
    """The first part of whatever the program imports that Python does not bring."""
    names = set()
    for path in [*(ROOT / "glmstudio").rglob("*.py"), ROOT / "app.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"glmstudio"}


def brought_along(name: str, extras: frozenset[str], seen: dict[tuple[str, frozenset[str]], str]) -> Iterator[str]:
    """The packages that an installed one needs here, and theirs."""
    for text in importlib.metadata.distribution(name).requires or ():
        need = Requirement(text)
        key = (canonicalize_name(need.name), frozenset(need.extras))
        if key in seen or not (need.marker is None or any(need.marker.evaluate({"extra": e}) for e in (*extras, ""))):
            continue
        seen[key] = name
        yield key[0]
        yield from brought_along(*key, seen)


def test_what_is_imported_is_listed_and_no_more():
    packages = importlib.metadata.packages_distributions()
    listed = pinned("requirements.txt")
    mine = imported() - OPTIONAL
    owners = {name: {canonicalize_name(owner) for owner in packages.get(name, ())} for name in mine}
    assert {name for name, owner in owners.items() if not owner & listed.keys()} == set()
    assert listed.keys() - set().union(*owners.values()) == set()
    assert imported() >= OPTIONAL


def test_what_that_brings_along_is_pinned():
    direct = pinned("requirements.txt", "tests/requirements.txt")
    constraints = pinned(".ci/constraints.txt")
    seen: dict[tuple[str, frozenset[str]], str] = {}
    needed = {name for root in direct for name in brought_along(root, frozenset(), seen)}
    # A torch for CUDA brings packages of its vendor, whose versions it says itself.
    needed = {name for name in needed if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert needed - direct.keys() - constraints.keys() == set()
    assert constraints.keys() & direct.keys() == set()
    assert constraints.keys() - needed == set()
    here = {name: importlib.metadata.version(name) for name in constraints}
    assert here == constraints
