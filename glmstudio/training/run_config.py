"""A run written down before it starts, as YAML and as a command, and the YAML taken back. Knows no model and no page.

`run.yaml` is one flat mapping, each key once:

- `base`, `device`, `dtype`, `quantization`: which base, as it was asked for (`auto` stays `auto`)
- `root` and `dataset` (a dataset of the page), or `train_path` and `dev_path` (files)
- `snapshot_id`: what the rows were when it was written; other rows are told, not refused
- `from_adapter`: the adapter that this one starts as; without it a fresh one
- `output_dir`: where the run goes; never written, because the folder that `run.yaml` lies in is taken
- every field of LoraSettings and TrainingSettings, under its own name or that of its flag; what is missing is as usual

A value is read by the kind of its key, so `2e-4` is a number and `on` a word, whatever YAML calls them.
"""

import dataclasses
import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import (
    DTYPES,
    METHODS,
    QUANTIZATIONS,
    SWITCHES,
    LoraSettings,
    TrainingSettings,
    flag_name,
    flag_value,
    out_of_bounds,
    recommended,
    switch,
)

RUN_YAML = "run.yaml"
USUAL_BASE = {"base": "embedded", "device": "auto", "dtype": "auto", "quantization": "none"}
_TEXTS = ("base", "device", "root", "dataset", "train_path", "dev_path", "snapshot_id", "output_dir", "from_adapter")
_CHOICES = {"dtype": DTYPES, "quantization": QUANTIZATIONS}
_SETTINGS = (LoraSettings, TrainingSettings)
_KINDS: dict[str, Any] = dict.fromkeys((*_TEXTS, *_CHOICES), str) | {
    name: kind for owner in _SETTINGS for name, kind in get_type_hints(owner).items()
}


_SWITCHED = [item.name for item in dataclasses.fields(TrainingSettings) if item.metadata["choices"] == SWITCHES]


def as_yaml(asked: Mapping[str, str], lora: LoraSettings, settings: TrainingSettings) -> str:
    """The text of `run.yaml`; `asked` are the keys that are no settings."""
    values = {**asked, **dataclasses.asdict(lora), **dataclasses.asdict(settings)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    header = shlex.join([*launcher(settings.num_processes), "-m", "glmstudio", "train", "--config", RUN_YAML])
    return f"# {header}\n" + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def write_yaml(folder: Path, asked: Mapping[str, str], lora: LoraSettings, settings: TrainingSettings) -> None:
    """Puts `run.yaml` into the folder of a run."""
    (folder / RUN_YAML).write_text(as_yaml(asked, lora, settings), encoding="utf-8")


def as_command(asked: Mapping[str, str], lora: LoraSettings, settings: TrainingSettings) -> str:
    """The command that trains the same run; of the settings it names those that are not the usual ones."""
    words = [*launcher(settings.num_processes), "-m", "glmstudio", "train"]
    for name, value in asked.items():
        words += [flag_name(name), value] if name == "base" or value != USUAL_BASE.get(name) else []
    usual = recommended(demonstration=asked["base"] == "embedded", method=settings.method)
    for values, default in ((lora, LoraSettings()), (settings, dataclasses.replace(usual, method=METHODS[0]))):
        for item in dataclasses.fields(values):
            value = getattr(values, item.name)
            if value != getattr(default, item.name) and item.name != "num_processes":
                words += [flag_name(item.name)] + ([] if value is True else [flag_value(value)])
    return shlex.join(words)


def launcher(processes: int) -> list[str]:
    """What starts so many processes on this machine."""
    return ["python"] if processes == 1 else ["torchrun", "--standalone", f"--nproc-per-node={processes}"]


def from_yaml(path: Path) -> dict[str, Any]:
    """The values of a `run.yaml` by their own names. Raises StudioError `config-unreadable`, `config-broken` (with the
    line), `config-shape`, and `config-refused` with a finding for each key that is wrong."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise StudioError("config-unreadable", file=str(path), reason=error.strerror) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise StudioError("config-broken", file=str(path), line=mark.line + 1 if mark else 1, reason=reason) from None
    if not isinstance(root, yaml.MappingNode):
        raise StudioError("config-shape", file=str(path))
    values: dict[str, Any] = {}
    found = [finding for key, value in root.value for finding in _take(key, value, values)]
    if found:
        raise StudioError("config-refused", file=str(path), findings=found)
    return values


def _take(key: yaml.Node, node: yaml.Node, values: dict[str, Any]) -> list[Finding]:
    """Puts one value among the others; gives what is wrong with it instead."""
    written = str(key.value)
    facts: dict[str, object] = {"line": key.start_mark.line + 1, "name": written}
    name = _own_name(written)
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, 1)
        return [_finding("config-near", facts, near=near[0]) if near else _finding("config-unknown", facts)]
    if name in values:
        return [_finding("config-twice", facts)]
    try:
        value = _read(node, _KINDS[name])
    except ValueError as error:
        return [_finding(f"config-{error}", facts, value=_shown(node))]
    if value is None:
        return []
    if name in _SWITCHED:
        value = switch(value)
    values[name] = value
    return [_finding(code, facts, **params) for code, params in _beyond(name, value)]


def _read(node: yaml.Node, kind: type) -> Any:
    """The value of a key of that kind, None for an empty one. Raises ValueError with what it should be."""
    if kind in (int, float, bool, str):
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError({int: "whole", float: "number", bool: "switch", str: "text"}[kind])
        return None if _is_empty(node) else _scalar(node.value, kind)
    if isinstance(node, yaml.ScalarNode):
        return None if _is_empty(node) else tuple(filter(None, node.value.replace(",", " ").split()))
    if not isinstance(node, yaml.SequenceNode) or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        raise ValueError("list")
    return tuple(item.value for item in node.value)


def _scalar(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("switch")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError("whole" if kind is int else "number") from None


def _beyond(name: str, value: Any) -> list[tuple[str, dict[str, object]]]:
    """(code, params) where a value breaks its bounds or choices."""
    if name in _CHOICES:
        choices = _CHOICES[name]
        return [] if value in choices else [("config-choice", {"value": value, "choices": ", ".join(choices)})]
    owner = next((owner for owner in _SETTINGS if name in owner.__dataclass_fields__), None)
    if owner is None:
        return []
    errors = out_of_bounds(dataclasses.replace(owner(), **{name: value}))
    codes = {"setting-bounds": "config-bounds", "setting-choice": "config-choice"}
    return [(codes[error.code], _without(error.params, "field")) for error in errors]


def _own_name(written: str) -> str:
    """The field of a key that is called like the flag: `lora-rank` is `r`."""
    flag = f"--{written.replace('_', '-')}"
    return next((name for name in _KINDS if flag_name(name) == flag), written)


def _finding(code: str, facts: Mapping[str, object], **params: object) -> Finding:
    return Finding(code, "error", params={**facts, **params})


def _without(params: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in params.items() if key != name}


def _shown(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "[…]" if node.id == "sequence" else "{…}"


def _is_empty(node: yaml.ScalarNode) -> bool:
    return node.tag == "tag:yaml.org,2002:null" and node.value in ("", "~", "null")
