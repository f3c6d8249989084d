"""A new run whose adapter starts as a finished one: which settings come from there, and its copy in the run's folder.

The copy is what training reads, when the run begins and when it goes on: what it was made from may change or go.
"""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmstudio.data.quality import Finding
from glmstudio.errors import StudioError
from glmstudio.settings import LoraSettings, TrainingSettings, flag_value
from glmstudio.training.runs import START

if TYPE_CHECKING:
    from glmstudio.models.base import Base
    from glmstudio.models.resident import Resident

# Fields of PEFT's config that say nothing about what is computed, and those that LoraSettings has.
_FREE = frozenset({
    "r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "peft_type", "peft_version", "auto_mapping",
    "base_model_name_or_path", "revision", "inference_mode", "init_lora_weights", "runtime_config", "layers_pattern",
})  # fmt: skip


@dataclass(frozen=True)
class Start:
    """The adapter at `path`: `values` are the settings that a run from it has, `dropout` what it was trained with."""

    path: Path
    values: Mapping[str, Any]
    dropout: float = 0.0

    def applied(self, lora: LoraSettings, settings: TrainingSettings) -> tuple[LoraSettings, TrainingSettings]:
        """The settings with those of the adapter in their place."""
        return tuple(
            dataclasses.replace(owner, **{name: value for name, value in self.values.items() if hasattr(owner, name)})
            for owner in (lora, settings)
        )

    def findings(self, base: "Base", given: Mapping[str, Any]) -> list[Finding]:
        """An error `from-adapter-contradicts` for each of the `given` settings that the adapter has otherwise, and the
        warning of `base_doubt`."""
        from glmstudio.models.adapters.adapter_base import base_doubt

        found = [self._contradiction(name, given[name]) for name in self.values.keys() & given.keys()]
        return [*filter(None, [*found, base_doubt(self.path, base.source, base.fingerprint)])]

    def _contradiction(self, name: str, wish: Any) -> Finding | None:
        own = self.values[name]
        # Without names the adapter's own list is meant.
        if wish == own or (isinstance(own, tuple) and (not wish or set(wish) == set(own))):
            return None
        shown = {"field": name, "wish": flag_value(wish), "own": flag_value(own), "adapter": str(self.path)}
        return Finding("from-adapter-contradicts", "error", params=shown)


def find_adapter(source: str, checkpoints: Path) -> Path:
    """The adapter that `source` names: a path, or `run-0001@best` among the workspace's runs. Absolute."""
    run, at, checkpoint = source.partition("@")
    ours = checkpoints / run / checkpoint
    return (ours if at and ours.is_dir() else Path(source).expanduser()).resolve()


def read_start(path: Path, base: "Base") -> Start:
    """What a run from the adapter at `path` on `base` is trained with; nothing is attached.

    Raises StudioError `from-adapter-setting` for an adapter that has what no run here trains, those of `adapter_form`,
    `lora_for` and `read_prefix`.
    """
    from glmstudio.models.adapters.adapter_about import about_adapter
    from glmstudio.models.adapters.adapter_base import refuse_other_base
    from glmstudio.models.adapters.adapter_files import adapter_form
    from glmstudio.models.adapters.adapter_fit import modules_of
    from glmstudio.models.adapters.adapters import lora_for, unfit
    from glmstudio.models.adapters.prefix_files import read_prefix

    form, about = adapter_form(path), about_adapter(path)
    style = {"prompt_style": about["prompt_style"]} if about["recorded"] else {}
    if form.kind == "ptuning":
        with unfit(form, base):
            refuse_other_base(form, base)
            encoder = read_prefix(base, form.path)
        shape = {"pre_seq_len": encoder.pre_seq_len, "prefix_projection": encoder.projection}
        return Start(path, {"method": "ptuning", **shape, **style})
    lora = lora_for(base, form)
    config, modules = lora.config, modules_of(lora, base)
    _refuse_special(config, modules, path)
    own = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": tuple(sorted(modules))}
    return Start(path, {"method": "lora", **own, **style}, config.lora_dropout)


class Starts:
    """What runs of a workspace begin with: a path, an `AdapterRef.name`, or "" for a fresh adapter."""

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self._last: tuple[Any, Start] | None = None

    def read(self, source: str, resident: "Resident") -> Start:
        """As `read_start` and raising as that does; read once until the files or the base are others."""
        path = find_adapter(source, self._checkpoints)
        key = path, resident.base.source, resident.base.fingerprint, _stamps(path)
        if self._last is None or self._last[0] != key:
            # Whoever trains changes the modules meanwhile.
            with resident.gate.turn():
                self._last = key, read_start(path, resident.base)
        return self._last[1]

    def look(self, source: str, resident: "Resident | None") -> tuple[Start | None, list[Finding]]:
        """(the adapter where it is known, why no run begins with it)."""
        if not source or resident is None:
            return None, []
        try:
            return self.read(source, resident), []
        except StudioError as error:
            return None, [Finding(error.code, "error", params=dict(error.params))]

    def asked(self, source: str) -> dict[str, str]:
        """The key of `run.yaml` that says so."""
        return {"from_adapter": str(find_adapter(source, self._checkpoints))} if source else {}


def keep_start(path: Path, place: Path) -> None:
    """Puts a copy of the adapter at `path`, LoRA of any form as PEFT's, into the folder of a run that begins with it.

    Raises StudioError `adapter-changing` where its files were moved meanwhile, and as `adapter_version` does.
    """
    from glmstudio.models.adapters.adapter_about import RECORD
    from glmstudio.models.adapters.adapter_version import adapter_version
    from glmstudio.models.exporting.export_adapter import write_adapter

    version, folder = adapter_version(path), place / START
    folder.mkdir()
    write_adapter(folder, version.form, version.form.trained_on or "")
    record = (path if path.is_dir() else path.parent) / RECORD
    if record.is_file():
        shutil.copyfile(record, folder / RECORD)
    if not version.is_there:
        raise StudioError("adapter-changing", folder=str(path))


def given(*settings: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The fields of settings by name, of which `names` are taken where they are said."""
    values = {item.name: getattr(owner, item.name) for owner in settings for item in dataclasses.fields(owner)}
    return values if names is None else {name: values[name] for name in names if name in values}


def _stamps(path: Path) -> list[tuple[str, int]]:
    return sorted((file.name, file.stat().st_mtime_ns) for file in path.iterdir()) if path.is_dir() else []


def _refuse_special(config: Any, modules: Iterable[str], path: Path) -> None:
    usual = type(config)()
    special = [
        f"{item.name}: {getattr(config, item.name)}"
        for item in dataclasses.fields(config)
        if item.name not in _FREE and (value := getattr(config, item.name)) and value != getattr(usual, item.name)
    ]
    # Names with dots are those of single layers.
    if layers := sorted(name for name in modules if "." in name):
        special.append(f"target_modules: {layers[0]} …")
    if special:
        raise StudioError("from-adapter-setting", folder=str(path), setting=special[0])
