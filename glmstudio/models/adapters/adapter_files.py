"""From the files of an adapter to a LoRA config and tensors under PEFT's names. Knows no model and attaches nothing.

Reads PEFT folders since 0.2 and single files of the trainable tensors, as ChatGLM-Tuning writes them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import PEFT_CONFIG, read_json, refuse_pointer, tensors, weight_files

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SINGLE_FILES = ("*lora*.pt", "*lora*.pth")
# What ChatGLM-Tuning's finetune.py trains with; a file of its trainable tensors does not say it.
ASSUMED_ALPHA, ASSUMED_DROPOUT = 32, 0.1
# Ways of PEFT to change what LoRA computes: of these only DoRA and rank-stabilised scaling are read.
OTHER_LORA = (
    "alora_invocation_tokens", "arrow_config", "use_bdlora", "use_qalora", "velora_config", "monteclora_config",
    "kasa_config",
)  # fmt: skip
# What peft 0.2 chose by itself for a single fused target: q and v of the thirds of its output.
ASSUMED_PARTS = (True, False, True)

_LORA = re.compile(
    r"(?:module\.)?(?:base_model\.model\.)?(.+)\.(lora_[AB])(?:\.(?!(?:weight|bias)$)[^.]+)?\.(weight|bias)"
)


@dataclass(frozen=True)
class AdapterForm:
    """What lies at a path: `kind` is "peft", "single-file" or "ptuning".

    `trained_on` is the base that the config names; `assumed_alpha` is set where no file gives the LoRA alpha.
    """

    kind: str
    path: Path
    config: Path | None
    weights: tuple[Path, ...]
    trained_on: str | None = None
    assumed_alpha: int | None = None


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter off its files: `state` maps `base_model.model.<module>.lora_A.weight` and so on to tensors on the
    CPU. `config.target_modules` is None where the file alone says which modules these are."""

    form: AdapterForm
    config: "LoraConfig"
    state: "dict[str, torch.Tensor]"


def adapter_form(path: str | Path) -> AdapterForm:
    """What the folder or file at `path` is, by names and configs alone: no weight is read.

    Raises StudioError `adapter-missing`, `adapter-no-weights`, and those of an unreadable config.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    config = folder / PEFT_CONFIG if (folder / PEFT_CONFIG).is_file() else None
    if config and path.name in (PEFT_CONFIG, *PEFT_WEIGHTS):
        path = folder
    if path.is_file():
        return _single_file(path, path, config)
    if weights := next((folder / name for name in PEFT_WEIGHTS if config and (folder / name).is_file()), None):
        return AdapterForm("peft", path, config, (weights,), _trained_on(config))
    singles = sorted(file for pattern in SINGLE_FILES for file in folder.glob(pattern))
    if len(singles) == 1:
        return _single_file(path, singles[0], config)
    if config:
        raise StudioError("adapter-no-weights", folder=str(folder), names=", ".join(PEFT_WEIGHTS))
    about = path / "config.json"
    if about.is_file() and read_json(about).get("pre_seq_len"):
        return AdapterForm("ptuning", path, about, tuple(weight_files(path)), read_json(about).get("_name_or_path"))
    raise StudioError("adapter-missing", folder=str(path))


def read_lora(form: AdapterForm) -> Lora:
    """The LoRA adapter of `form`, with peft 0.2's adapters on parts of a fused layer made plain.

    Raises StudioError `adapter-kind`, `adapter-foreign-tensor`, `adapter-missing`, `lfs-pointer` and those of
    `tensors`; ValueError or TypeError where the config holds values that PEFT does not take.
    """
    from peft import LoraConfig, PeftConfig

    values = read_json(form.config) if form.config else {}
    if (kind := values.setdefault("peft_type", "LORA")) != "LORA":
        raise StudioError("adapter-kind", folder=str(form.path), kind=kind)
    if other := [name for name in OTHER_LORA if values.get(name)]:
        raise StudioError("adapter-kind", folder=str(form.path), kind=f"LoRA + {other[0]}")
    state = _state(form)
    # These two keys of peft 0.2 are served below; what else PEFT does not know it names in a warning.
    parts = values.pop("enable_lora", None) or ASSUMED_PARTS
    values.pop("merge_weights", None)
    if form.config:
        config = PeftConfig.from_peft_type(**values)
    else:
        # The second size of B is the rank in peft 0.2's form too, where A has two ranks on top of each other.
        rank = next(value for name, value in state.items() if ".lora_B." in name).shape[1]
        config = LoraConfig(r=rank, lora_alpha=ASSUMED_ALPHA, lora_dropout=ASSUMED_DROPOUT, task_type="CAUSAL_LM")
    if _make_plain(state, parts):
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    return Lora(form, config, state)


def _single_file(path: Path, file: Path, config: Path | None) -> AdapterForm:
    assumed = None if config else ASSUMED_ALPHA
    return AdapterForm("single-file", path, config, (file,), _trained_on(config), assumed)


def _trained_on(config: Path | None) -> str | None:
    return (read_json(config).get("base_model_name_or_path") or None) if config else None


def _state(form: AdapterForm) -> "dict[str, torch.Tensor]":
    (file,) = form.weights
    refuse_pointer(file)
    state, foreign = {}, []
    for name, value in tensors(file):
        if matched := _LORA.fullmatch(name):
            name = "base_model.model.{}.{}.{}".format(*matched.groups())
        else:
            foreign.append(name)
        state[name] = value
    if not any(".lora_" in name for name in state):
        raise StudioError("adapter-missing", folder=str(form.path))
    if foreign and form.kind == "single-file":
        raise StudioError("adapter-foreign-tensor", file=str(file), tensor=foreign[0], count=len(foreign))
    return state


def _make_plain(state: "dict[str, torch.Tensor]", parts: Sequence[bool]) -> bool:
    """Rewrite peft 0.2's MergedLinear tensors in place as plain LoRA of twice the rank; whether there were any.

    A (2r, in) is two matrices on top of each other. B (2·out/parts, r, 1), a grouped 1x1 convolution, maps the first to
    the first enabled part of the fused output and the second to the second. Plain: B (out, 2r) with these two blocks.
    """
    import torch

    found = False
    for name in [name for name in state if ".lora_B." in name]:
        a, b = state.get(name.replace(".lora_B.", ".lora_A.")), state[name]
        if a is None or (b.dim() != 3 and a.shape[0] != 2 * b.shape[1]):
            continue
        first, second = (place for place, on in enumerate(parts) if on)
        rows, rank = b.shape[0] // 2, b.shape[1]
        plain = torch.zeros(rows * len(parts), 2 * rank, dtype=b.dtype)
        plain[first * rows : (first + 1) * rows, :rank] = b[:rows].reshape(rows, rank)
        plain[second * rows : (second + 1) * rows, rank:] = b[rows:].reshape(rows, rank)
        state[name] = plain
        found = True
    return found
