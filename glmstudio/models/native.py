"""A causal model that transformers has built in, from its folder: weights, and which tensors there should be."""

import re
from collections.abc import Collection
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from glmstudio.errors import StudioError, first_line
from glmstudio.models.checkpoint_files import (
    file_of_tensor,
    refuse_misfit,
    refuse_missing,
    refuse_unreadable,
    weight_files,
)
from glmstudio.models.quantisation.quantising import Shrink
from glmstudio.models.stored_tensors import StoredTensors

LAYER_NUMBER = re.compile(r"\d+")


def load_native(folder: Path, dtype: torch.dtype, shrink: Shrink) -> PreTrainedModel:
    """The model of a folder as `dtype`, on the CPU, with every tensor found and fitting.

    Raises StudioError `base-unreadable`, `shard-unreadable`, `tensor-shape`, `tensor-foreign`, `tensors-missing` and
    those of `weight_files`.
    """
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
    # Buffers of older releases may lie beside the weights, but a layer too many means another model's config.
    known = {LAYER_NUMBER.sub("", name) for name in model.state_dict()}
    for name in sorted(found["unexpected_keys"]):
        if LAYER_NUMBER.sub("", name) in known:
            raise StudioError("tensor-foreign", file=file_of_tensor(folder, name), tensor=name)
    shrink(model)
    return model


def native_stored_tensors(folder: Path) -> StoredTensors:
    """The tensors of the model that the folder's config describes. Raises whatever its class raises."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    tensors = dict(model.state_dict())

    def names_of(file: Path, name: str, value: torch.Tensor) -> Collection[str]:
        if name not in tensors:
            return ()
        refuse_misfit(file, name, value, tuple(tensors[name].shape))
        return (name,)

    return StoredTensors(tensors, names_of, renames=True)
