"""Makes a LoRA adapter off its files fit one base, or says why it does not: names, splits, shapes, settings.

Works on tensors and the base's module tree; changes neither the base nor a file.
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils import AuxiliaryTrainingWrapper
from peft.utils.other import get_pattern_key
from transformers import GlmConfig
from transformers.pytorch_utils import Conv1D

from glmstudio.errors import StudioError
from glmstudio.models.adapters.adapter_base import both_bases, refuse_other_base
from glmstudio.models.adapters.adapter_files import Lora
from glmstudio.models.conversion import GlmNames

if TYPE_CHECKING:
    from glmstudio.models.base import Base

PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(.+?)\.(lora_.+)")
# Ways to begin that rewrite the base's own weights; their adapters are right on those only.
_REWRITES_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


def fit(lora: Lora, base: "Base") -> Lora:
    """`lora` with the names and splits of `base`'s own layers and with `target_modules` set.

    Adapters of ChatGLM2, ChatGLM3 and GLM-4 in their original form get the layers of GlmForCausalLM: A of
    `query_key_value` goes to q, k and v, B is cut into the three. Raises StudioError `adapter-changes-base`,
    `adapter-other-base`, `adapter-other-layers`, `adapter-vocabulary`, those of `refuse_other_base`, and ValueError for
    files at odds.
    """
    _refuse_rewriting(lora)
    refuse_other_base(lora.form, base)
    if isinstance(base.model.config, GlmConfig):
        lora = _with_native_names(lora, base)
    _refuse_other_shapes(lora, base)
    config = lora.config
    if isinstance(config.init_lora_weights, str):
        # How it began no longer matters: every weight comes from the file.
        config.init_lora_weights = True
    if config.target_modules is None:
        config.target_modules = modules_of(lora, base)
    return lora


def modules_of(lora: Lora, base: "Base") -> set[str]:
    """The modules that have tensors: by their last names where those have no others in `base`, else in full."""
    return _short({_parts(key)[0] for key in lora.state}, base)


def _refuse_rewriting(lora: Lora) -> None:
    config = lora.config
    begun = config.init_lora_weights
    rewriting = {
        "bias": config.bias if config.bias != "none" else None,
        "init_lora_weights": begun if isinstance(begun, str) and _REWRITES_BASE.match(begun) else None,
        "layer_replication": config.layer_replication,
    }
    for name, value in rewriting.items():
        if value:
            raise StudioError("adapter-changes-base", folder=str(lora.form.path), setting=f"{name}: {value}")


def _with_native_names(lora: Lora, base: "Base") -> Lora:
    names = GlmNames.of(base.model.config)
    fused_rows = names.query_rows + 2 * names.key_rows
    state: dict[str, torch.Tensor] = {}
    renamed = False
    for key, value in lora.state.items():
        module, rest = _parts(key)
        native = names.native(module)
        if not native:
            state[key] = value
            continue
        renamed = True
        by_output = not rest.startswith("lora_A")
        if by_output and len(native) > 1:
            _refuse_shape(lora, base, key, [fused_rows, *value.shape[1:]])
        for name, rows in native.items():
            state[f"{PREFIX}{name}.{rest}"] = (value[rows] if by_output else value).clone()
    if renamed:
        modules = (path for path, _ in base.model.named_modules())
        _rename_in_config(lora, base, {path: old for path in modules if (old := names.official(path))})
    return replace(lora, state=state)


def _rename_in_config(lora: Lora, base: "Base", olds: dict[str, str]) -> None:
    """Put new names where the config has old ones; `olds` maps every module of the base to its old name."""
    config = lora.config
    if config.target_modules is not None:
        chosen = {new for new, old in olds.items() if check_target_module_exists(config, old)}
        config.target_modules = _short(chosen, base) or config.target_modules
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    if config.modules_to_save:
        kept = {new for new, old in olds.items() if _leaf(old) in config.modules_to_save}
        config.modules_to_save = sorted(_short(kept, base)) or config.modules_to_save
    for patterns in (config.rank_pattern, config.alpha_pattern):
        values = {
            new: patterns[key] for new, old in olds.items() if (key := get_pattern_key(patterns, old)) in patterns
        }
        patterns.clear()
        patterns.update(values)


def _refuse_other_shapes(lora: Lora, base: "Base") -> None:
    for key, value in lora.state.items():
        module, rest = _parts(key)
        if rest not in ("lora_A.weight", "lora_B.weight"):
            if (expected := _own_shape(base.model, module, rest, value)) is not None:
                _refuse_shape(lora, base, key, expected)
            continue
        sizes = _sizes(base.model, module)
        if sizes is None and ".experts" in module:
            # Experts stand in one tensor today; PEFT itself fuses the adapters of single ones.
            continue
        if sizes is None:
            raise StudioError("adapter-other-layers", **both_bases(lora.form, base.source), tensor=module)
        is_a = rest == "lora_A.weight"
        rank = value.shape[0 if is_a else 1]
        if not lora.config.rank_pattern and rank != lora.config.r:
            raise ValueError(f"{key} has rank {rank}, its config says r = {lora.config.r}")
        expected = [rank, sizes[0]] if is_a else [sizes[1], rank]
        _refuse_shape(lora, base, key, expected)


def _refuse_shape(lora: Lora, base: "Base", key: str, expected: list[int]) -> None:
    actual, words = list(lora.state[key].shape), base.model.get_input_embeddings().weight.shape[0]
    if actual == expected:
        return
    facts = {"tensor": key, "actual": actual, "expected": expected}
    ends = (base.model.get_input_embeddings(), base.model.get_output_embeddings())
    of_words = any(_plain(base.model, _parts(key)[0]) is unwrapped(end) for end in ends)
    differing = [wish for found, wish in zip(actual, expected, strict=False) if found != wish]
    if of_words and len(actual) == len(expected) and differing == [words]:
        raise StudioError("adapter-vocabulary", folder=str(lora.form.path), source=base.source, **facts)
    raise StudioError("adapter-other-base", **both_bases(lora.form, base.source), **facts)


def _short(modules: set[str], base: "Base") -> set[str]:
    """The last names of `modules` where the base has no other modules of these names, else the modules in full."""
    leaves = {_leaf(module) for module in modules}
    inside = {path for path, _ in base.model.named_modules() if _leaf(path) in leaves}
    return leaves if inside == modules else modules


def _own_shape(model: torch.nn.Module, module: str, rest: str, value: torch.Tensor) -> list[int] | None:
    """Of a tensor that an adapter keeps whole, or whose rows are the base's tokens; None for others."""
    layer = _plain(model, module)
    if rest == "lora_embedding_A" and isinstance(layer, torch.nn.Embedding):
        return [value.shape[0], layer.num_embeddings]
    own = getattr(layer, rest, None)
    return list(own.shape) if isinstance(own, torch.nn.Parameter) else None


def _sizes(model: torch.nn.Module, path: str) -> tuple[int, int] | None:
    """(in, out) of the linear layer at `path`, with or without an adapter around it; None where the base has none."""
    layer = _plain(model, path)
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    return (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else None


def _plain(model: torch.nn.Module, path: str) -> Any:
    """The base's own module at `path`, None where there is none."""
    try:
        return unwrapped(model.get_submodule(path))
    except AttributeError:
        return None


def unwrapped(module: Any) -> Any:
    """The base's own module behind those that PEFT put in its place."""
    while isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
        module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
    return module


def _parts(key: str) -> tuple[str, str]:
    """(module, what comes behind) of a tensor's name; the last name is what comes behind where no part is LoRA's."""
    if found := _KEY.fullmatch(key):
        return found[1], found[2]
    module, _, rest = key.removeprefix(PREFIX).rpartition(".")
    return module, rest


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
