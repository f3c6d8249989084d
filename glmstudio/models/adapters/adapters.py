"""Finished adapters onto a base: LoRA in every form that is read, P-Tuning v2. Knows no training loop and no gate.

LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv 2106.09685.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, PeftModelForCausalLM, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import TrainableTokensWrapper

from glmstudio.errors import StudioError, first_line
from glmstudio.models.adapters.adapter_base import refuse_other_base
from glmstudio.models.adapters.adapter_files import AdapterForm, Lora, adapter_form, read_lora
from glmstudio.models.adapters.adapter_fit import fit, unwrapped
from glmstudio.models.adapters.prefix_files import load_prefix
from glmstudio.models.peft_internals import holds_copy

if TYPE_CHECKING:
    from glmstudio.models.base import Base

FUSED_ONCE = ("q_proj", "k_proj", "v_proj")

# PEFT asks for a name that transformers is about to drop; nothing here depends on it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


def load_adapter(base: "Base", path: str | Path, *, trainable: bool = False) -> torch.nn.Module:
    """The base with the adapter at `path` active, in evaluation mode: a PeftModel for LoRA, else the prefixed model.

    An adapter that was loaded on `base` before is taken off. `trainable` makes the LoRA weights ask for gradients.
    Raises StudioError `adapter-missing`, `adapter-unfit` and those of `lora_for`; no layer of the base is changed then.
    """
    form = adapter_form(path)
    if form.kind == "ptuning":
        with unfit(form, base):
            refuse_other_base(form, base)
            prefixed = load_prefix(base, form.path)
        take_off(base.model)
        return prefixed
    lora = lora_for(base, form)
    take_off(base.model)
    try:
        with unfit(form, base):
            lora.config.inference_mode = not trainable
            model = PeftModelForCausalLM(base.model, lora.config)
            fill(model, "default", lora)
    except StudioError:
        take_off(base.model)
        raise
    return model.eval()


def lora_for(base: "Base", form: AdapterForm) -> Lora:
    """The LoRA adapter of `form` with names and shapes that fit `base`, frozen. Reads files, changes nothing.

    Raises StudioError: `adapter-unfit` and those of `read_lora` and `fit`.
    """
    with unfit(form, base):
        lora = fit(read_lora(form), base)
        lora.config.inference_mode = True
        return lora


def fill(model: PeftModel, name: str, lora: Lora) -> None:
    """Put the tensors of `lora` into the adapter `name` of `model`, which was made from `lora.config`.

    Where q, k and v have equal A, as those of a fused layer do, they share one Parameter: gradients then add up as they
    did in the fused layer. Raises StudioError `adapter-incomplete` and `adapter-other-layers`.
    """
    for layer in model.modules():
        if isinstance(layer, TrainableTokensWrapper):
            layer.adapter_state_dict = partial(_own_state, layer, "adapter_state_dict")
            layer.adapter_state_dict_load_map = partial(_own_state, layer, "adapter_state_dict_load_map")
    found = set_peft_model_state_dict(model, lora.state, adapter_name=name)
    missing = sorted(key for key in found.missing_keys if f".{name}." in key and ".base_layer." not in key)
    (file,) = lora.form.weights
    if missing:
        first = missing[0].replace(f".{name}.", ".")
        raise StudioError("adapter-incomplete", file=str(file), tensor=first, count=len(missing))
    if found.unexpected_keys:
        raise StudioError(
            "adapter-other-layers",
            folder=str(lora.form.path),
            trained_on=lora.form.trained_on or "?",
            source=str(model.get_base_model().name_or_path),
            tensor=sorted(found.unexpected_keys)[0].replace(f".{name}.", "."),
        )
    _share_equal_a(model, name)


def _own_state(layer: TrainableTokensWrapper, method: str, name: str, *rest: Any) -> dict[str, Any]:
    """As PEFT's method, which does not expect to be asked for an adapter that trains no tokens here."""
    return getattr(type(layer), method)(layer, name, *rest) if holds_copy(layer, name) else {}


def _share_equal_a(model: PeftModel, name: str) -> None:
    for attention in model.get_base_model().modules():
        layers = [getattr(attention, part, None) for part in FUSED_ONCE]
        if not all(isinstance(layer, LoraLayer) and name in layer.lora_A for layer in layers):
            continue
        first, *others = (layer.lora_A[name] for layer in layers)
        if all(torch.equal(first.weight, other.weight) for other in others):
            for other in others:
                other.weight = first.weight


@contextmanager
def unfit(form: AdapterForm, base: "Base") -> Iterator[None]:
    """Turns whatever a library raises within into StudioError `adapter-unfit`: it says that path and base differ."""
    try:
        yield
    except StudioError:
        raise
    except Exception as error:  # A folder may hold anything, and every library in between has errors of its own.
        raise StudioError(
            "adapter-unfit", folder=str(form.path), source=base.source, reason=first_line(error)
        ) from error


def take_off(model: torch.nn.Module) -> None:
    """Puts the base's own layers back in the place of PEFT's, also after PEFT stopped half-way.

    PEFT's own unload leaves a head that was trained beside an adapter in the place of the base's.
    """
    vars(model).pop("peft_config", None)
    replaced: tuple[str, ...] = ()
    for path, module in list(model.named_modules()):
        if replaced and path.startswith(replaced):
            continue
        own = unwrapped(module)
        if own is not module:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, own)
            replaced = (*replaced, f"{path}.")
