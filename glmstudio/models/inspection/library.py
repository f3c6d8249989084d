"""The bases that are on this machine: shipped, in the hubs' caches, in the workspace, and used before.

Reads configs and headers, never weights; a folder that cannot be read is listed with the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from glmstudio.errors import StudioError
from glmstudio.models.base_names import EMBEDDED, absolute
from glmstudio.models.checkpoint_files import SINGLE_FILES
from glmstudio.models.devices import chosen_device, chosen_dtype, free_memory
from glmstudio.models.hubs import hub_modelscope
from glmstudio.models.hubs.hub_huggingface import kept_folder
from glmstudio.models.inspection.anatomy import Anatomy, anatomy, is_prefix
from glmstudio.models.inspection.memory_needs import Needs, fitting, memory_needs
from glmstudio.models.sources import embedded_folder
from glmstudio.models.supported import unsupported_folder
from glmstudio.models.used_bases import remembered
from glmstudio.settings import QUANTIZATIONS
from glmstudio.workspace import Workspace

# Where an export whose check failed is put aside.
UNCHECKED = ".unchecked"
WEIGHT_NAMES = tuple(f"{name}{end}" for name in SINGLE_FILES for end in ("", ".index.json"))


@dataclass(frozen=True)
class LocalBase:
    """`source` is what to load it by. `family` is a row's name and `title` what people call it, "" where unknown;
    `form` as `anatomy.FORMS`. `needs` by quantization and `fits` what there is memory for, as `memory_needs.FITS`.
    `problem` is the first thing that is wrong, None where the folder is whole."""

    source: str
    folder: Path
    family: str
    title: str
    form: str
    bytes_on_disk: int
    parameters: int
    needs: dict[str, Needs]
    fits: dict[str, str]
    problem: StudioError | None

    @property
    def whole(self) -> bool:
        return self.problem is None


def bases_on_this_machine(root: Path, *, held: int = 0) -> list[LocalBase]:
    """Every base that is found, the embedded one first, then by family and source.

    `root` is the workspace's. `held` are bytes that the base in memory takes, which another one would get.
    """
    device = chosen_device("auto")
    sizes = {"number_bytes": chosen_dtype("auto", device).itemsize, "device": device.type}
    free = free_memory(device) + held
    found: dict[Path, LocalBase] = {}
    for source, folder in _candidates(Workspace(root)):
        place = folder.resolve()
        if place not in found and not is_prefix(looked := anatomy(folder, source)):
            found[place] = _described(looked, sizes, free)
    first, *others = found.values()
    return [first, *sorted(others, key=lambda base: (base.title, base.source))]


def _candidates(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    """(source, folder); where two names lead to one folder, the better name comes first."""
    yield EMBEDDED, embedded_folder()
    for repository in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        owner, name = repository.name.removeprefix("models--").split("--", 1)
        source = f"{owner}/{name}"
        folder = kept_folder(source) or next(iter(sorted(repository.glob("snapshots/*"))), None)
        if folder is not None and _is_model(folder):
            yield source, folder
    for name, folder in sorted(hub_modelscope.kept_folders().items()):
        if _is_model(folder):
            yield f"modelscope:{name}", folder
    for folder in sorted((*workspace.checkpoints.glob("*"), *workspace.checkpoints.glob("*/*"))):
        if _is_model(folder) and not folder.name.startswith(".") and not folder.name.endswith(UNCHECKED):
            yield absolute(str(folder)), folder
    for source in remembered(workspace.root):
        folder = Path(source).expanduser()
        if source != EMBEDDED and folder.is_dir():
            yield absolute(source), folder


def _is_model(folder: Path) -> bool:
    """Whether a folder has a config and weights, or a part of them."""
    if not (folder / "config.json").is_file():
        return False
    return any((folder / name).exists() for name in WEIGHT_NAMES) or any(folder.glob("*-of-*.*"))


def _described(looked: Anatomy, sizes: Mapping[str, Any], free: int) -> LocalBase:
    wishes = QUANTIZATIONS[:1] if looked.form in ("int4", "int8") else QUANTIZATIONS
    family = looked.family
    untrained = unsupported_folder(looked.folder, family, looked.source) if family and not looked.problems else None
    problems = [*looked.problems, *([untrained] if untrained and untrained.code == "family-cache" else [])]
    needs = {wish: memory_needs(looked, quantization=wish, **sizes) for wish in wishes}
    return LocalBase(
        source=looked.source,
        folder=looked.folder,
        family=family.name if family else "",
        title=family.title if family else "",
        form=looked.form,
        bytes_on_disk=looked.bytes_on_disk,
        parameters=looked.parameters,
        needs=needs,
        fits={wish: fitting(need, free, trains=untrained is None) for wish, need in needs.items()},
        problem=next(iter(problems), None),
    )
