"""A folder in the original form of ChatGLM2, ChatGLM3 or GLM-4, rewritten for plain transformers.

Streams from file to file: one shard of the result is in memory. Knows no adapter; the numbers stay as they are stored.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, GlmConfig

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import read_config, refuse_missing, tensors, weight_files
from glmstudio.models.conversion import GlmNames, empty_model, native_tensors
from glmstudio.models.devices import chosen_dtype
from glmstudio.models.exporting.destinations import aside, require_room
from glmstudio.models.exporting.shards import SHARD_BYTES
from glmstudio.models.families.family import Family
from glmstudio.models.families.names import is_original
from glmstudio.models.families.table import family_of
from glmstudio.models.loading import TOKENIZER_FILES, load_tokenizer
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.quantisation.quantised import quantisation_of
from glmstudio.models.sources import folder_of
from glmstudio.models.tensor_writing import save_tensors
from glmstudio.models.vocabularies.vocabulary_fit import refuse_larger_vocabulary

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ConvertReport:
    """What was written: the family's name, how many tensors, their bytes, and in how many files."""

    family: str
    tensors: int
    bytes: int
    shards: int


def convert(
    source: str | Path,
    destination: Path,
    *,
    dtype: str = "auto",
    shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress = lambda done, total: None,
) -> ConvertReport:
    """Writes `source` as GlmForCausalLM into `destination`: safetensors, configs and a tokenizer of plain transformers.

    `dtype` "auto" keeps the stored number type. `on_progress(done, total)` counts the bytes of tensors that were read.
    `destination` appears whole or not at all. Raises StudioError `convert-not-needed` for every other form,
    `convert-quantised` for packed weights, those of `destinations.aside` and of reading.
    """
    folder = folder_of(str(source))
    config = read_config(folder)
    family = family_of(config, str(source))
    if not is_original(config):
        raise StudioError("convert-not-needed", source=str(source), family=family.title)
    if quantisation_of(config, str(folder)) != "none":
        raise StudioError("convert-quantised", source=str(source), bits=config["quantization_bit"])
    model, names = empty_model(folder, config, family)
    tokenizer = load_tokenizer(folder) if any((folder / name).is_file() for name in TOKENIZER_FILES) else None
    if tokenizer is not None:
        refuse_larger_vocabulary(tokenizer, model.config.vocab_size, str(folder))
    files = weight_files(folder)
    require_room(destination, sum(file.stat().st_size for file in files))
    with aside(Path(destination)) as new:
        wish = None if dtype == "auto" else chosen_dtype(dtype, torch.device("cpu"))
        shards = _Shards(new, shard_bytes)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        for name, part in _parts(files, names, shapes, on_progress):
            shards.add(name, part.to(part.dtype if wish is None else wish, copy=True).contiguous())
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        refuse_missing(folder, {names.official_tensor(name) for name in shapes.keys() - shards.placed.keys() - tied})
        shards.close()
        model.config.dtype = shards.dtype
        model.config.save_pretrained(new)
        _generation_config(model.config, family, tokenizer).save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
    return ConvertReport(family.name, len(shards.placed), shards.bytes, shards.count)


def _parts(
    files: list[Path], names: GlmNames, shapes: Mapping[str, tuple[int, ...]], on_progress: OnProgress
) -> Iterator[tuple[str, torch.Tensor]]:
    """(native name, view) of every stored tensor."""
    done, total = 0, sum(file.stat().st_size for file in files)
    for file in files:
        for stored_name, value in tensors(file):
            yield from native_tensors(names, shapes, file, stored_name, value).items()
            done += value.nbytes
            on_progress(min(done, total), total)
    on_progress(total, total)


class _Shards:
    """Safetensors files of `limit` bytes at most, filled one after another, and their index where there are several.

    Their names say how many there are, so they get them at the end.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.placed: dict[str, int] = {}
        self.dtype: torch.dtype | None = None
        self.bytes = self.count = 0
        self._open: dict[str, torch.Tensor] = {}

    def add(self, name: str, value: torch.Tensor) -> None:
        """Takes a tensor that owns its memory."""
        if self._open and sum(tensor.nbytes for tensor in self._open.values()) + value.nbytes > self.limit:
            self._flush()
        self._open[name], self.placed[name], self.dtype = value, self.count, self.dtype or value.dtype
        self.bytes += value.nbytes

    def close(self) -> None:
        """Writes what is left, then gives every file its name."""
        self._flush()
        if self.count == 1:
            self._unnamed(0).rename(self.folder / "model.safetensors")
            return
        final = [f"model-{number:05d}-of-{self.count:05d}.safetensors" for number in range(1, self.count + 1)]
        for number, name in enumerate(final):
            self._unnamed(number).rename(self.folder / name)
        weight_map = {name: final[number] for name, number in sorted(self.placed.items())}
        index = {"metadata": {"total_size": self.bytes}, "weight_map": weight_map}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _unnamed(self, number: int) -> Path:
        return self.folder / f"{number}.part"

    def _flush(self) -> None:
        save_tensors(self._open, self._unnamed(self.count))
        self._open, self.count = {}, self.count + 1


def _generation_config(config: GlmConfig, family: Family, tokenizer: Any) -> GenerationConfig:
    """With every token that ends an answer here, so that it ends in plain transformers too."""
    ends = end_ids(tokenizer, family, config.eos_token_id)
    return GenerationConfig(eos_token_id=ends, pad_token_id=config.pad_token_id)
