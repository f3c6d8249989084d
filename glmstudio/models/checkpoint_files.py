"""The files of a model folder: which hold the weights, whether they are all there, what tensors are in them.

Reads safetensors and pickled shards (tensors only). Knows no model class; every error names the file and what to do.
"""

import json
import math
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from glmstudio.errors import StudioError, first_line
from glmstudio.models.inspection.pickled_names import code_in_pickle

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Whatever torch and safetensors say of rubbish.
UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, AttributeError, LookupError,
    TypeError, AssertionError,
)  # fmt: skip
# torch's names of the numbers that safetensors has letters for.
NUMBERS = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "BOOL": "bool",
}
PEFT_CONFIG = "adapter_config.json"
PARTIAL_SUFFIXES = (".incomplete", ".part", ".crdownload", ".aria2")


@dataclass(frozen=True)
class Header:
    """Form of a stored tensor. `dtype` is torch's name: float16, int8 …"""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def empty(self) -> torch.Tensor:
        """A tensor like it on "meta"; of bytes where torch has no such numbers."""
        return torch.empty(self.shape, dtype=getattr(torch, self.dtype, torch.uint8), device="meta")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises StudioError `file-unreadable`, `lfs-pointer`."""
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudioError("file-unreadable", file=str(path), reason=str(error)) from error
    if not isinstance(values, dict):
        raise StudioError("file-unreadable", file=str(path), reason="not a JSON object")
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's `config.json`.

    Raises StudioError `base-is-adapter` for an adapter's folder, `config-missing` where weights lie alone,
    `base-not-a-model` where there are none either, and those of `read_json`.
    """
    # First of all: transformers, too, would load the base that an adapter's config names, whatever lies beside it.
    if (folder / PEFT_CONFIG).is_file():
        base = read_json(folder / PEFT_CONFIG).get("base_model_name_or_path")
        raise StudioError("base-is-adapter", folder=str(folder), base=base or "?")
    if not (folder / "config.json").is_file():
        weights = next((path for path in sorted(folder.iterdir()) if path.suffix in WEIGHT_SUFFIXES), None)
        if weights is not None:
            raise StudioError("config-missing", folder=str(folder), file=weights.name)
        raise StudioError("base-not-a-model", folder=str(folder))
    return read_json(folder / "config.json")


def refuse_pointer(path: Path) -> None:
    """Raise StudioError `lfs-pointer` where a file is only Git LFS's note about it."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise StudioError("lfs-pointer", file=str(path), folder=str(path.parent))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, safetensors before pickled ones, every one there and no pointer.

    Raises StudioError `base-incomplete`, `base-no-weights`, `base-index-missing`, `index-climbs`, `lfs-pointer`,
    `file-unreadable`.
    """
    files, problems = survey_weights(folder)
    if problems:
        raise problems[0]
    return files


def survey_weights(folder: Path) -> tuple[list[Path], list[StudioError]]:
    """(the weight files that are there and no pointers, everything that is wrong with them), as `weight_files` says."""
    problems = _partial(folder)
    try:
        named = _named_files(folder)
    except StudioError as error:
        return [], [*problems, error]
    files = []
    for file in named:
        try:
            refuse_pointer(file)
        except StudioError as error:
            problems.append(error)
        else:
            if file.is_file():
                files.append(file)
            elif all(problem.params.get("file") != file.name for problem in problems):
                problems.append(StudioError("base-incomplete", folder=str(folder), file=file.name))
    return files, problems


def _named_files(folder: Path) -> list[Path]:
    """The weight files that should be there."""
    for name in SINGLE_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return [folder / shard for shard in dict.fromkeys(shards_of(index).values())]
    for name in SINGLE_FILES:
        stem, _, suffix = name.rpartition(".")
        if parts := sorted(path.name for path in folder.glob(f"{stem}-*-of-*.{suffix}")):
            facts = {"folder": str(folder), "file": f"{name}.index.json", "count": len(parts)}
            raise StudioError("base-index-missing", **facts, parts=", ".join(parts[:4]))
    raise StudioError("base-no-weights", folder=str(folder), names=", ".join(SINGLE_FILES))


def shards_of(index: Path) -> dict[str, str]:
    """Which file of the index's folder holds each tensor.

    Raises StudioError `index-climbs` for a file elsewhere, and those of an unreadable index.
    """
    weight_map = read_json(index).get("weight_map")
    files = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not files or not all(isinstance(file, str) and file for file in files):
        raise StudioError("file-unreadable", file=str(index), reason="no weight_map")
    for file in dict.fromkeys(files):
        if any(path.anchor or ".." in path.parts for path in (PurePosixPath(file), PureWindowsPath(file))):
            raise StudioError("index-climbs", file=str(index), entry=file)
    return weight_map


def file_of_tensor(folder: Path, name: str) -> str:
    """The path of the file that holds the tensor `name`, or the folder where no index says it."""
    for single in SINGLE_FILES:
        index = folder / f"{single}.index.json"
        if not (folder / single).is_file() and index.is_file():
            shard = shards_of(index).get(name)
            return str(folder / shard) if shard else str(folder)
        if (folder / single).is_file():
            return str(folder / single)
    return str(folder)


def refuse_missing(folder: Path, names: set[str]) -> None:
    """Raise StudioError `tensors-missing` if there are `names`: the first ones, how many, and the first one's file."""
    if names:
        first = sorted(names)[:3]
        file = file_of_tensor(folder, first[0])
        raise StudioError("tensors-missing", folder=str(folder), file=file, tensors=", ".join(first), count=len(names))


def refuse_misfit(
    file: Path, name: str, value: torch.Tensor, shape: tuple[int, ...] | None, *, packed: bool = False
) -> None:
    """Raise StudioError `tensor-foreign` (no `shape`) or `tensor-shape` for a tensor that is no float of `shape`, or no
    int8 of it where it holds `packed` values."""
    if shape is None:
        raise StudioError("tensor-foreign", file=str(file), tensor=name)
    fits = value.dtype == torch.int8 if packed else value.is_floating_point()
    if not fits or tuple(value.shape) != shape:
        actual = f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        raise StudioError("tensor-shape", file=str(file), tensor=name, expected=list(shape), actual=actual)


def _partial(folder: Path) -> list[StudioError]:
    """A `base-incomplete` for every file that is still on its way."""
    # aria2 keeps its control file beside a target that already has its full size.
    waiting = [
        path.with_suffix("").name
        for path in sorted(folder.iterdir())
        if path.suffix == ".aria2" or (path.suffix in PARTIAL_SUFFIXES and not path.with_suffix("").exists())
    ]
    return [StudioError("base-incomplete", folder=str(folder), file=name) for name in dict.fromkeys(waiting)]


def refuse_unreadable(files: list[Path]) -> None:
    """Raise StudioError `shard-unreadable` for the first file that is cut short or not what its name says."""
    for file in files:
        next(tensors(file), None)


def tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor on the CPU) of one weight file, one at a time.

    Raises StudioError `shard-unreadable`, `pickle-runs-code`.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - safe_open has no iterator
                    yield name, shard.get_tensor(name)
        else:
            state = _pickled(file)
            for name in list(state):
                yield name, state.pop(name)
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def tensor_headers(file: Path) -> dict[str, Header]:
    """The form of every tensor in one weight file; their numbers are not read.

    Raises StudioError `shard-unreadable`, also for a file that is cut short, `pickle-runs-code`.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as shard:
                parts = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118 - as above
                return {
                    name: Header(tuple(part.get_shape()), NUMBERS.get(part.get_dtype(), part.get_dtype()))
                    for name, part in parts.items()
                }
        state = _pickled(file)
        return {name: Header(tuple(value.shape), str(value.dtype)[6:]) for name, value in state.items()}
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _pickled(file: Path) -> dict[str, torch.Tensor]:
    # Mapped, the numbers stay on the disk until they are used.
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("not a table of tensors")
    return state


def _unreadable(file: Path, error: Exception) -> StudioError:
    if isinstance(error, pickle.UnpicklingError) and (names := code_in_pickle(file)):
        return StudioError("pickle-runs-code", file=str(file), names=", ".join(names[:3]))
    return StudioError("shard-unreadable", file=str(file), reason=first_line(error))
