"""How much memory a model takes to answer and to train, from the forms of its tensors. Knows no file and no device.

Weights are counted exactly. The cache is 2 (keys and values) x layers x width of the key heads x tokens. For training a
LoRA on all linear layers it takes, beside the weights,
- 16 bytes for each of its numbers: float32 weight, gradient and Adam's two averages;
- what the backward pass needs: tokens x layers x (a x inner + b x hidden) numbers, where a and b are measured, as the
  tensors that autograd saved in GlmForCausalLM, LlamaForCausalLM and ChatGLM-6B's model with SDPA attention (4 and 10
  in float32; 5 and 18 in 16 bits, where PEFT makes float32 copies for the adapter); with gradient checkpointing 1.5 x
  hidden for each layer and one whole layer. `PEAK` times that, for gradients on their way and what allocators keep;
- the logits of a chunk, their softmax and its slope, in float32; `training.loss` bounds the chunk.

Rough: in eight runs of a GlmForCausalLM of 6 layers on a CPU (1 to 6 rows of 700 tokens, both number types, with and
without checkpointing) the process grew by 0.6 to 1.2 times what is said here. On graphics cards it was not measured.
"""

import re
from dataclasses import dataclass

from glmstudio.models.checkpoint_files import Header
from glmstudio.models.inspection.anatomy import Anatomy
from glmstudio.settings import LoraSettings, TrainingSettings

NOT_QUANTISED = re.compile(r"embed|lm_head|output_layer|\.experts\.|prefix_encoder")
BYTES_PER_ADAPTER_NUMBER = 16
# NF4: a byte holds two numbers; 64 of them share a scale of one byte.
BYTES_PER_NUMBER = {"8bit": 1.0, "4bit": 0.5 + 1 / 64}
SAVED = {4: (4.0, 10.0), 2: (5.0, 18.0)}
KEPT_BY_CHECKPOINTING = 1.5
# (factor on what the backward pass needs, bytes that the libraries take once)
PEAK = {"cpu": (1.8, 200 * 2**20), "cuda": (1.2, 200 * 2**20)}
LOGITS, BYTES_PER_LOGIT = 2**24, 12
ROWS_ANSWERED = 2
# From most to least: the standard settings, one row with gradient checkpointing, answers only.
FITS = ("train", "train-least", "answer", "nothing")


@dataclass(frozen=True)
class Needs:
    """Bytes. `answer` is for base and tuned answers side by side; `train` for the standard settings; `train_least` for
    one row at a time with gradient checkpointing. The weights are in all of them."""

    weights: int
    answer: int
    train: int
    train_least: int


def memory_needs(
    found: Anatomy, *, number_bytes: int, device: str = "cpu", quantization: str = "none", length: int = 2048
) -> Needs:
    """What `found` takes where a number has `number_bytes`; answers have `length` tokens with their prompts.

    `device` is a torch device's type. `quantization` "8bit" or "4bit" is what loading makes of the linear layers;
    packed files stay as they are.
    """
    shape, settings = found.shape, TrainingSettings()
    weights = _weights(found, number_bytes, quantization)
    cache = 2 * shape.layers * shape.kv_width * number_bytes * length * ROWS_ANSWERED
    row = settings.max_source_length + settings.max_target_length
    adapter = BYTES_PER_ADAPTER_NUMBER * _adapter_numbers(found)
    per_inner, per_hidden = SAVED[number_bytes]
    peak, once = PEAK.get(device, PEAK["cuda"])
    layer = round(peak * (per_inner * shape.inner + per_hidden * shape.hidden)) * number_bytes
    kept = round(peak * KEPT_BY_CHECKPOINTING * shape.hidden) * number_bytes
    fixed = weights + adapter + once + BYTES_PER_LOGIT * min(LOGITS, row * shape.vocabulary)
    return Needs(
        weights=weights,
        answer=weights + cache,
        train=fixed + settings.per_device_train_batch_size * row * shape.layers * layer,
        train_least=fixed + row * (shape.layers * kept + layer),
    )


def fitting(needs: Needs, free: int, *, trains: bool = True) -> str:
    """The first of `FITS` that `free` bytes are enough for; "untrained" where only that the base is not one that
    `trains` here stands against it."""
    sizes = (needs.train, needs.train_least, needs.answer, 0)
    if not trains:
        return "untrained" if needs.answer <= free else FITS[-1]
    return next(wish for wish, size in zip(FITS, sizes, strict=True) if size <= free or size == 0)


def _weights(found: Anatomy, number_bytes: int, quantization: str) -> int:
    total = 0.0
    for name, header in found.tensors.items():
        if name.endswith("inv_freq") or (found.tied and name.startswith("lm_head.")):
            continue
        if header.dtype == "int8":
            total += header.numel
        elif quantization in BYTES_PER_NUMBER and _is_linear(name, header):
            total += header.numel * BYTES_PER_NUMBER[quantization]
        else:
            total += header.numel * number_bytes
    return round(total)


def _adapter_numbers(found: Anatomy) -> int:
    rank = LoraSettings().r
    matrices = [header for name, header in found.tensors.items() if _is_linear(name, header)]
    return rank * sum(header.shape[0] + found.numbers_of(header) // header.shape[0] for header in matrices)


def _is_linear(name: str, header: Header) -> bool:
    return len(header.shape) == 2 and not NOT_QUANTISED.search(name)
