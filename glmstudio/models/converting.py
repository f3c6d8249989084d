"""A folder in the original form of ChatGLM2, ChatGLM3 or GLM-4, rewritten for plain transformers.

Streams from file to file: one shard of the result is in memory. Knows no adapter; the numbers stay as they are stored.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, GlmConfig

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import read_config, refuse_missing, tensor_headers, tensors, weight_files
from glmstudio.models.conversion import GlmNames, empty_model, native_tensors
from glmstudio.models.devices import chosen_dtype
from glmstudio.models.exporting.destinations import aside, require_room
from glmstudio.models.exporting.shards import SHARD_BYTES, planned, write_shards
from glmstudio.models.families.family import Family
from glmstudio.models.families.names import is_original
from glmstudio.models.families.table import family_of
from glmstudio.models.loading import TOKENIZER_FILES, load_tokenizer
from glmstudio.models.prompts.dialogue import end_ids
from glmstudio.models.quantisation.quantised import quantisation_of
from glmstudio.models.sources import folder_of
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
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        stored = _Stored(files, names, shapes)
        stored.look(wish)
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        refuse_missing(folder, {names.official_tensor(name) for name in shapes.keys() - stored.forms.keys() - tied})
        plan = planned(stored.forms, shard_bytes)
        write_shards(new, plan, stored.read(on_progress))
        model.config.dtype = next(iter(stored.forms.values())).dtype
        model.config.save_pretrained(new)
        _generation_config(model.config, family, tokenizer).save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
    return ConvertReport(family.name, len(stored.forms), plan.metadata["total_size"], len(plan.filename_to_tensors))


@dataclass
class _Stored:
    """What `files` hold for the converted model: `forms` are its tensors on "meta", in the order in which they are
    read; `files_of` says where each is."""

    files: list[Path]
    names: GlmNames
    shapes: Mapping[str, tuple[int, ...]]
    forms: dict[str, torch.Tensor] = field(default_factory=dict)
    files_of: dict[str, Path] = field(default_factory=dict)

    def look(self, wish: torch.dtype | None) -> None:
        """Reads the headers alone. Raises StudioError for a tensor that is not of the model."""
        for file in self.files:
            for stored_name, header in tensor_headers(file).items():
                parts = native_tensors(self.names, self.shapes, file, stored_name, header.empty())
                self.forms |= {name: part.to(wish or part.dtype) for name, part in parts.items()}
                self.files_of |= dict.fromkeys(parts, file)

    def read(self, on_progress: OnProgress) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor with a memory of its own), one after another."""
        done, total = 0, sum(file.stat().st_size for file in self.files)
        for file in self.files:
            for stored_name, value in tensors(file):
                for name, part in native_tensors(self.names, self.shapes, file, stored_name, value).items():
                    if self.files_of[name] == file:
                        yield name, part.to(self.forms[name].dtype, copy=True).contiguous()
                done += value.nbytes
                on_progress(min(done, total), total)
        on_progress(total, total)


def _generation_config(config: GlmConfig, family: Family, tokenizer: Any) -> GenerationConfig:
    """With every token that ends an answer here, so that it ends in plain transformers too."""
    ends = end_ids(tokenizer, family, config.eos_token_id)
    return GenerationConfig(eos_token_id=ends, pad_token_id=config.pad_token_id)
