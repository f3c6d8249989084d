"""A loaded base: what adapters, training and answering get. Knows no files and no adapter."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from glmstudio.models.families.family import Family


@dataclass(frozen=True)
class Base:
    """A loaded base in evaluation mode. `tokenizer` is None where the folder has no tokenizer files. `quantization` is
    "none", "8bit" or "4bit", whether the files have it or loading did it. `source` is "embedded", an absolute path or a
    hub id; `fingerprint` tells the weights of its files by content, "" where they were made here."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    family: Family
    source: str
    device: torch.device
    dtype: torch.dtype
    quantization: str = "none"
    fingerprint: str = ""
