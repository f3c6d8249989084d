"""The house rules that a program can check: arrows point down, heavy packages come late, every error has its words."""

import ast
import json
import re
import statistics
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "glmstudio"
FLOORS = (
    {"settings", "workspace", "errors", "environment", "faults", "file_names", "processes", "quantities"},
    {"models", "data"},
    {"training", "inference", "evaluation", "embedded"},
    {"studio", "benchmarks"},
    {"ui", "cli", "commands", "terminal", "__main__"},
)
CIRCLES = (
    ("glmstudio.ui.compare_answers", "glmstudio.ui.compare"),
    ("glmstudio.ui.compare_prompt", "glmstudio.ui.compare"),
    ("glmstudio.ui.compare_verdict", "glmstudio.ui.compare"),
)
SOURCES = sorted(PACKAGE.rglob("*.py"))


def floor_of(part: str) -> int:
    return next(level for level, parts in enumerate(FLOORS) if part in parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported_names(path: Path) -> set[str]:
    """What a file imports, at its top, inside a function or for types only: modules and names in them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, path
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """The first-level parts of glmstudio that a file imports."""
    modules = imported_names(path)
    parts = {module.split(".")[1] for module in modules if module.startswith("glmstudio.")}
    return {part for part in parts if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()}


def test_no_arrow_runs_up():
    wrong = []
    for path in SOURCES:
        here = part_of(path)
        if here == "__init__":
            assert not imported_parts(path)
            continue
        for part in imported_parts(path):
            if floor_of(part) > floor_of(here) or {here, part} == {"training", "inference"}:
                wrong.append(f"{path.relative_to(ROOT)} imports {part}")
    assert wrong == []


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_import_circle():
    modules = {module_of(path): path for path in SOURCES}
    arrows = {name: (imported_names(path) & modules.keys()) - {name} for name, path in modules.items()}
    for name, other in CIRCLES:
        arrows[name].remove(other)
    TopologicalSorter(arrows).prepare()


def test_what_depends_on_a_family_is_in_its_row():
    rows = {f"glmstudio.models.families.{file}" for file in ("chatglm", "original_glm")}
    outside = [path for path in SOURCES if path.parent != PACKAGE / "models" / "families"]
    assert [str(path.relative_to(ROOT)) for path in outside if rows & imported_names(path)] == []
    named = re.compile(r"family(?:\.name)? (?:is|==|in) (?:not )?[\"'(]")
    lines = [f"{path.name}: {line}" for path in outside for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if named.search(line)] == []


def test_rooms_are_small():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert statistics.median(lengths.values()) < 180


def test_the_page_is_built_without_torch(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from glmstudio.studio import Studio\n"
        "from glmstudio.ui.build import build_app\n"
        "from glmstudio.workspace import Workspace\n"
        f"build_app(Studio(Workspace(pathlib.Path({str(tmp_path)!r}))))\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_is_light():
    code = "import glmstudio, sys; print(sorted({'torch', 'gradio', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_error_has_its_sentence_in_both_languages():
    codes = set()
    for path in [*SOURCES, ROOT / "app.py"]:
        codes |= set(re.findall(r"StudioError\(\s*\"([\w-]+)\"", path.read_text(encoding="utf-8")))
    assert codes
    for language in ("en", "zh"):
        words = json.loads((PACKAGE / "ui" / "locales" / f"{language}.json").read_text(encoding="utf-8"))
        assert sorted(code for code in codes if f"error.{code}" not in words) == [], language


def test_no_test_has_a_bound_in_seconds_that_a_busy_machine_breaks():
    bound = re.compile(r"(?:\.(?:join|wait|close|acquire|result)\((?:timeout=)?|\btimeout=)(\d[\d_.]*)\)?")
    short = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        # Playwright counts milliseconds.
        least = 120_000 if path.parent.name == "ui" else 120
        for line in path.read_text(encoding="utf-8").splitlines():
            # `Event.wait(0.01)` is the step of a loop.
            short += [f"{path.name}: {line}" for found in bound.findall(line) if 0.1 < float(found) < least]
    assert short == []
