"""From a name to a base that can run: folder or hub id, family, weights, tokenizer, adapters.

Knows no prompt, no training and no generation. Whatever is wrong with the files is a StudioError that names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from glmstudio.errors import StudioError
from glmstudio.models import hub
from glmstudio.models.adapters import load_adapter
from glmstudio.models.chatglm.tokenization_chatglm import VOCAB_FILES_NAMES, ChatGLMTokenizer
from glmstudio.models.chatglm.weights import load_chatglm
from glmstudio.models.checkpoint_files import (
    file_of_tensor,
    first_line,
    read_json,
    refuse_missing,
    refuse_pointer,
    refuse_unreadable,
    weight_files,
)
from glmstudio.models.conversion import load_original
from glmstudio.models.families import CHATGLM, Family, family_of, is_original
from glmstudio.workspace import repository_root

__all__ = ["Base", "embedded_folder", "load_adapter", "load_base", "load_tokenizer"]

EMBEDDED = "embedded"
DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}
CHATGLM_VOCABULARY = VOCAB_FILES_NAMES["vocab_file"]
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", CHATGLM_VOCABULARY)


@dataclass(frozen=True)
class Base:
    """A loaded base in evaluation mode. `tokenizer` is None where the folder has no tokenizer files."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    family: Family
    source: str
    device: torch.device
    dtype: torch.dtype


def embedded_folder() -> Path:
    """The folder of the small base that ships with the program."""
    return repository_root() / "data" / "embedded"


def load_base(source: str | Path, *, device: str = "auto", dtype: str = "auto") -> Base:
    """The base named by `source`: "embedded", a local folder or a hub id.

    `device` is "auto" (CUDA where there is one) or a torch device; `dtype` is "auto" (bfloat16 where the device has
    instructions for it, else float32) or one of `DTYPES`. Raises StudioError for whatever is wrong with files or wish.
    """
    where = _device(device)
    kind = _dtype(dtype, where)
    folder = _folder(str(source))
    config = _read_config(folder)
    family = family_of(config, str(source))
    tokenizer = load_tokenizer(folder) if any((folder / name).is_file() for name in TOKENIZER_FILES) else None
    model = _load_model(folder, config, family, where, kind)
    model.config.name_or_path = model.name_or_path = str(source)
    model.generation_config = _generation_config(model)
    return Base(model.eval(), tokenizer, family, str(source), where, kind)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, told by its `config.json`.

    Raises StudioError `tokenizer-unreadable`, `base-incomplete`, `lfs-pointer` and those of an unknown family.
    """
    folder = Path(folder)
    family = family_of(_read_config(folder), str(folder))
    for name in TOKENIZER_FILES:
        refuse_pointer(folder / name)
    # Without its config the tokenizer would take the first release's offset of 20000, and every id would be wrong.
    for name in (CHATGLM_VOCABULARY, "tokenizer_config.json") if family is CHATGLM else ():
        if not (folder / name).is_file():
            raise StudioError("base-incomplete", folder=str(folder), file=name)
    try:
        if family is CHATGLM:
            return ChatGLMTokenizer.from_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # Every tokenizer class reads its files in its own way and fails in its own way.
        raise StudioError("tokenizer-unreadable", folder=str(folder), reason=first_line(error)) from error


def _folder(source: str) -> Path:
    folder = embedded_folder() if source == EMBEDDED else Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source != EMBEDDED and not folder.exists() and hub.HUB_ID.fullmatch(source):
        return hub.fetch(source)
    raise StudioError("base-missing", source=str(folder))


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise StudioError("base-not-a-model", folder=str(folder))
    return read_json(folder / "config.json")


def _device(wish: str) -> torch.device:
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StudioError("device-unavailable", device=wish, reason=first_line(error)) from error
    return device


def _dtype(wish: str, device: torch.device) -> torch.dtype:
    if wish == "auto":
        if device.type == "cuda":
            gains = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            # Without these instructions bfloat16 is emulated, several times slower than float32.
            able = torch.cpu.get_capabilities()
            gains = device.type == "cpu" and any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))
        return torch.bfloat16 if gains else torch.float32
    if wish not in DTYPES:
        raise StudioError("dtype-unknown", dtype=wish, choices=", ".join(("auto", *DTYPES)))
    return DTYPES[wish]


def _load_model(
    folder: Path, config: Mapping[str, Any], family: Family, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    if family is CHATGLM:
        return load_chatglm(folder, config, device, dtype)
    if is_original(config):
        return load_original(folder, config, family, device, dtype)
    return _load_native(folder, device, dtype)


def _load_native(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A causal model that transformers has built in, with every tensor found and fitting."""
    refuse_unreadable(weight_files(folder))
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # transformers raises whatever its parts raise; the files themselves are readable.
        raise StudioError("base-unreadable", folder=str(folder), reason=first_line(error)) from error
    for name, actual, expected in sorted(found["mismatched_keys"]):
        file = file_of_tensor(folder, name)
        raise StudioError("tensor-shape", file=file, tensor=name, expected=list(expected), actual=list(actual))
    refuse_missing(folder, set(found["missing_keys"]))
    return model.to(device)


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
