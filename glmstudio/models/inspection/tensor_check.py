"""Whether a folder's tensors are those of the model that its config describes: names and shapes, without numbers.

Builds the model on "meta", where it takes no memory. Knows no tokenizer.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GlmForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.chatglm import weights as chatglm
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.checkpoint_files import first_line, refuse_misfit, refuse_missing
from glmstudio.models.conversion import GlmNames, glm_config, native_tensors
from glmstudio.models.families import CHATGLM, is_original
from glmstudio.models.inspection.anatomy import Anatomy
from glmstudio.models.quantisation.quantised import quantisation_of, use_packed_layers

HEAD = "lm_head.weight"


@dataclass(frozen=True)
class _Model:
    """`names_of(file, name, value)` gives the model's tensors that a stored one becomes, or raises StudioError where it
    becomes none; `stored(name)` is the way back. `renamed`: transformers gives its own names while loading, which
    only itself knows, so that a name that is not found proves nothing."""

    tensors: dict[str, torch.Tensor]
    names_of: Callable[[Path, str, torch.Tensor], Collection[str]]
    stored: Callable[[str], str] = str
    renamed: bool = False


def tensor_problems(found: Anatomy) -> list[StudioError]:
    """The first tensor of each file that the model does not have or has in another shape, and what is missing.

    What is missing is told where every file could be read. The config must be of a known family.
    """
    try:
        model = _model(found)
    except Exception as error:  # Configs can be wrong in many ways, and each model class has its own.
        return [StudioError("config-unfit", file=str(found.folder / "config.json"), reason=first_line(error))]
    problems: dict[Path, StudioError] = {}
    missing = set(model.tensors) - ({HEAD} if found.tied else set())
    for file, headers in found.headers.items():
        for name, header in headers.items():
            value = torch.empty(header.shape, dtype=getattr(torch, header.dtype), device="meta")
            try:
                missing.difference_update(model.names_of(file, name, value))
            except StudioError as error:
                problems.setdefault(file, error)
    if not model.renamed and not problems and set(found.headers) == set(found.files) and not found.problems:
        try:
            refuse_missing(found.folder, {model.stored(name) for name in missing})
        except StudioError as error:
            return [error]
    return list(problems.values())


def _model(found: Anatomy) -> _Model:
    if found.family is CHATGLM:
        return _chatglm(found)
    return _original(found) if is_original(found.config) else _native(found)


def _chatglm(found: Anatomy) -> _Model:
    with torch.device("meta"):
        model: Any = ChatGLMForConditionalGeneration(ChatGLMConfig(**found.config))
    kinds = use_packed_layers(model, quantisation_of(found.config, str(found.folder)))
    tensors = dict(model.state_dict())

    def names_of(file: Path, name: str, value: torch.Tensor) -> Collection[str]:
        if chatglm.NOT_LOADED.search(name):
            return ()
        own = HEAD if name == chatglm.WRAPPED_HEAD else name
        shape = tuple(tensors[own].shape) if own in tensors else None
        refuse_misfit(file, name, value, shape, packed=kinds.get(own) == torch.int8)
        return (own,)

    return _Model(tensors, names_of)


def _original(found: Anatomy) -> _Model:
    config = glm_config(found.config, found.family)
    with torch.device("meta"):
        model: Any = GlmForCausalLM(config)
    kinds = use_packed_layers(model, quantisation_of(found.config, str(found.folder)))
    tensors, names = dict(model.state_dict()), GlmNames.of(config)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    def stored(name: str) -> str:
        module, _, kind = name.rpartition(".")
        return f"{names.official(module)}.{kind}"

    return _Model(
        tensors, lambda file, name, value: native_tensors(names, shapes, file, name, value, kinds).keys(), stored
    )


def _native(found: Anatomy) -> _Model:
    config = AutoConfig.from_pretrained(found.folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    tensors = dict(model.state_dict())

    def names_of(file: Path, name: str, value: torch.Tensor) -> Collection[str]:
        if name not in tensors:
            return ()
        refuse_misfit(file, name, value, tuple(tensors[name].shape))
        return (name,)

    return _Model(tensors, names_of, renamed=not found.tensors.keys() <= tensors.keys())
