"""What is used here of transformers that it keeps to itself: a later version may move any of it, and a test says what.

Methods that a class here overrides stand in their class; the same test knows them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments


def attention_of(config: "PreTrainedConfig") -> str:
    """The name of the attention that a model of this config computes."""
    return config._attn_implementation


@contextmanager
def other_attention(config: "PreTrainedConfig", name: str) -> Iterator[None]:
    """Within, a model of this config computes the attention that is registered as `name`; nothing is checked."""
    usual = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual


@contextmanager
def checkpointing_with_cache(blocks: Iterable["torch.nn.Module"]) -> Iterator[None]:
    """Within, these layers take a cache with gradient checkpointing, too."""
    blocks = list(blocks)
    # Instance attributes over those of the class: `del` brings those back.
    for block in blocks:
        block._can_checkpoint_with_cache = True
    try:
        yield
    finally:
        for block in blocks:
            del block._can_checkpoint_with_cache


def kept_in_float32(model: "PreTrainedModel") -> set[str]:
    """Parts of the names of weights that stay in float32 for their precision."""
    return {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}


def decoder_layers(model: Any) -> list["torch.nn.Module"]:
    """The layers that transformers says stay on one device: a name for the decoder layers of every family."""
    return [module for module in model.modules() if type(module).__name__ in model._no_split_modules]


def encodes_by_its_backend(tokenizer: Any) -> bool:
    """Whether the ids of a tokenizer are those of its backend, and none of its own making."""
    from transformers import PreTrainedTokenizerFast as Fast

    kind = type(tokenizer)
    return isinstance(tokenizer, Fast) and (kind.encode, kind._encode_plus) == (Fast.encode, Fast._encode_plus)


def use_one_device(arguments: "TrainingArguments", device: "torch.device") -> None:
    """A run is on one device: no DataParallel over the other cards."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    arguments._setup_devices = arguments.distributed_state.device = device


def leave_unwrapped(model: Any) -> None:
    """Keeps accelerate, which the Trainer asks, from wrapping a model."""
    model._is_accelerate_prepared = True
