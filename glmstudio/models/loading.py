"""From a source to a base that can run: family, weights, tokenizer.

Knows no adapter, no prompt, no training and no generation. Whatever is wrong with the files is a StudioError that
names them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from glmstudio.errors import StudioError, first_line
from glmstudio.models.base import Base
from glmstudio.models.base_names import absolute
from glmstudio.models.chatglm import registration  # noqa: F401 - makes ChatGLM-6B known to the Auto classes
from glmstudio.models.checkpoint_files import read_config, read_json, refuse_pointer
from glmstudio.models.devices import chosen_device, chosen_dtype
from glmstudio.models.families.family import Family
from glmstudio.models.families.table import FAMILIES, family_of
from glmstudio.models.fingerprint import fingerprint
from glmstudio.models.hubs import hub
from glmstudio.models.process_memory import give_back
from glmstudio.models.quantisation.quantised import quantisation_of
from glmstudio.models.quantisation.quantising import leave, shrink_to
from glmstudio.models.sources import folder_of
from glmstudio.models.vocabularies.vocabulary_fit import refuse_larger_vocabulary

TOKENIZER_FILES = {
    "tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json",
    *(name for family in FAMILIES.values() for name in family.tokenizer_files),
}  # fmt: skip


def load_base(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    in_main_memory: bool = False,
    on_download: hub.OnProgress | None = None,
    should_stop: hub.ShouldStop | None = None,
) -> Base:
    """The base named by `source`: "embedded", a local folder or a hub id.

    `device` is "auto" (CUDA where there is one) or a torch device; `dtype` is "auto" (bfloat16 where the device has
    instructions for it, else float32) or one of `devices.DTYPES`. `quantization` "8bit" or "4bit" quantises the linear
    layers of a full-precision base while it loads. `in_main_memory` leaves the weights of a base for `device` there,
    for whoever brings them over in parts. `on_download` and `should_stop` are for a hub's model, as `hub.fetch` has
    them. Raises StudioError for whatever is wrong with files or wish.
    """
    where = chosen_device(device)
    kind = chosen_dtype(dtype, where)
    source = absolute(str(source))
    folder = folder_of(source, on_download, should_stop)
    config = read_config(folder)
    family = family_of(config, source)
    tokenizer = load_tokenizer(folder) if any((folder / name).is_file() for name in TOKENIZER_FILES) else None
    rows = config.get("padded_vocab_size", config.get("vocab_size"))
    if tokenizer is not None and rows:
        refuse_larger_vocabulary(tokenizer, rows, str(folder))
    stored = quantisation_of(config, str(folder))
    if stored != "none" and quantization not in ("none", stored):
        raise StudioError("quantization-stored", folder=str(folder), stored=stored, quantization=quantization)
    place = torch.device("cpu") if in_main_memory else where
    shrink = shrink_to("none" if stored == quantization else quantization, place, kind)
    # What is to be quantised comes to the device when it is.
    first = place if shrink is leave else torch.device("cpu")
    model = family.load_model(folder, config, first, kind, shrink).to(place)
    if shrink is not leave:
        # The full weights came and went.
        give_back()
    model.config.name_or_path = model.name_or_path = source
    model.generation_config = _generation_config(model)
    quantization = quantization if stored == "none" else stored
    return Base(model.eval(), tokenizer, family, source, where, kind, quantization, fingerprint(folder))


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, told by its `config.json`.

    One that names no end of a text gets that of config.json or generation_config.json; it has none where they neither.
    Raises StudioError `tokenizer-unreadable`, `base-incomplete`, `lfs-pointer` and those of an unknown family.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = _read_tokenizer(folder, family_of(config, str(folder)))
    if tokenizer.eos_token_id is None:
        for end in _named_ends(folder, config):
            if 0 <= end < len(tokenizer) and (token := tokenizer.convert_ids_to_tokens(end)) is not None:
                tokenizer.eos_token = token
                break
    return tokenizer


def _named_ends(folder: Path, config: Mapping[str, Any]) -> list[int]:
    path = folder / "generation_config.json"
    try:
        of_answers = read_json(path) if path.is_file() else {}
    except StudioError:  # It only describes; a broken one is as good as none.
        of_answers = {}
    wishes = (config.get("eos_token_id"), of_answers.get("eos_token_id"))
    ends = [end for wish in wishes for end in (wish if isinstance(wish, list) else [wish])]
    return [end for end in ends if isinstance(end, int)]


def _read_tokenizer(folder: Path, family: Family) -> PreTrainedTokenizerBase:
    for name in TOKENIZER_FILES:
        refuse_pointer(folder / name)
    for name in family.tokenizer_files:
        if not (folder / name).is_file():
            raise StudioError("base-incomplete", folder=str(folder), file=name)
    try:
        return family.read_tokenizer(folder)
    except Exception as error:  # Every tokenizer class reads its files in its own way and fails in its own way.
        raise StudioError("tokenizer-unreadable", folder=str(folder), reason=first_line(error)) from error


def _generation_config(model: PreTrainedModel) -> GenerationConfig:
    """Greedy, with every end id that the model's files name: no sampling values and no penalty of an old file."""
    ends: list[int] = []
    for wish in (model.config.eos_token_id, model.generation_config.eos_token_id):
        ends += wish if isinstance(wish, list) else [wish]
    ends = [end for end in dict.fromkeys(ends) if end is not None]
    return GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=model.config.pad_token_id if model.config.pad_token_id is not None else next(iter(ends), None),
    )
