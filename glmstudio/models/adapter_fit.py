"""Makes a LoRA adapter off its files fit one base, or says why it does not: names, splits, shapes, settings.

Works on tensors and the base's module tree; changes neither the base nor a file.
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from transformers import GlmConfig

from glmstudio.errors import StudioError
from glmstudio.models.adapter_files import Lora
from glmstudio.models.conversion import GlmNames

if TYPE_CHECKING:
    from glmstudio.models.loading import Base

PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(.+?)\.((?:lora_|modules_to_save\b).+)")
# ChatGLM2 and ChatGLM3 have equal shapes: only the name tells their adapters apart.
_CHATGLM = re.compile(r"chatglm([23]?)-?6b", re.IGNORECASE)
# Ways to begin that rewrite the base's own weights; their adapters are right on those only.
_REWRITES_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)


def fit(lora: Lora, base: "Base") -> Lora:
    """`lora` with the names and splits of `base`'s own layers and with `target_modules` set.

    Adapters of ChatGLM2, ChatGLM3 and GLM-4 in their original form get the layers of GlmForCausalLM: A of
    `query_key_value` goes to q, k and v, B is cut into the three. Raises StudioError `adapter-changes-base`,
    `adapter-other-family`, `adapter-other-base`, `adapter-other-layers`, and ValueError for files at odds.
    """
    _refuse_rewriting(lora)
    _refuse_other_family(lora, base)
    if isinstance(base.model.config, GlmConfig):
        lora = _with_native_names(lora, base)
    _refuse_other_shapes(lora, base)
    config = lora.config
    if isinstance(config.init_lora_weights, str):
        # How it began no longer matters: every weight comes from the file.
        config.init_lora_weights = True
    if config.target_modules is None:
        config.target_modules = _short_targets(lora, base)
    return lora


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


def _refuse_other_family(lora: Lora, base: "Base") -> None:
    found = _CHATGLM.search((lora.form.trained_on or "").replace("\\", "/").rstrip("/").rpartition("/")[2])
    if found and base.family.name.startswith("chatglm") and base.family.name != f"chatglm{found[1]}":
        raise StudioError("adapter-other-family", **_bases(lora, base), family=base.family.title)


def _bases(lora: Lora, base: "Base") -> dict[str, str]:
    return {"folder": str(lora.form.path), "trained_on": lora.form.trained_on or "?", "source": base.source}


def _with_native_names(lora: Lora, base: "Base") -> Lora:
    names = GlmNames.of(base.model.config)
    fused_rows = names.query_rows + 2 * names.key_rows
    state: dict[str, torch.Tensor] = {}
    renamed: dict[str, list[str]] = {}
    for key, value in lora.state.items():
        module, rest = _parts(key)
        native = names.native(module)
        if not native:
            state[key] = value
            continue
        renamed[module] = list(native)
        by_output = not rest.startswith("lora_A")
        if by_output and len(native) > 1 and value.shape[0] != fused_rows:
            expected = [fused_rows, *value.shape[1:]]
            raise StudioError(
                "adapter-other-base", **_bases(lora, base), tensor=key, actual=list(value.shape), expected=expected
            )
        for name, rows in native.items():
            state[f"{PREFIX}{name}.{rest}"] = (value[rows] if by_output else value).clone()
    if renamed:
        _rename_in_config(lora.config, renamed)
    return replace(lora, state=state)


def _rename_in_config(config: LoraConfig, renamed: dict[str, list[str]]) -> None:
    """Put the new names where the config has old ones. The layers are named in full where it chose among them."""
    short: dict[str, set[str]] = {}
    for old, new in renamed.items():
        short.setdefault(_leaf(old), set()).update(_leaf(name) for name in new)
    targets = config.target_modules
    if targets is not None:
        plain = not isinstance(targets, str) and set(targets) <= set(short) and not config.exclude_modules
        names = [short[name] for name in targets] if plain else renamed.values()
        config.target_modules = {name for some in names for name in some}
        config.exclude_modules = None
        if not plain:
            config.layers_to_transform = config.layers_pattern = None
    if config.modules_to_save:
        config.modules_to_save = sorted({new for old in config.modules_to_save for new in short.get(old, {old})})
    for patterns in (config.rank_pattern, config.alpha_pattern):
        by_old = {old: patterns[key] for old in renamed if (key := get_pattern_key(patterns, old)) in patterns}
        patterns.clear()
        patterns.update({name: value for old, value in by_old.items() for name in renamed[old]})


def _refuse_other_shapes(lora: Lora, base: "Base") -> None:
    for key, value in lora.state.items():
        module, rest = _parts(key)
        if rest not in ("lora_A.weight", "lora_B.weight"):
            continue
        layer = _layer(base.model, module)
        if layer is None and ".experts." in module:
            # Experts stand in one tensor today; PEFT fuses the adapters of single ones itself.
            continue
        if layer is None:
            raise StudioError("adapter-other-layers", **_bases(lora, base), tensor=module)
        is_a = rest == "lora_A.weight"
        rank = value.shape[0 if is_a else 1]
        if not lora.config.rank_pattern and rank != lora.config.r:
            raise ValueError(f"{key} has rank {rank}, its config says r = {lora.config.r}")
        expected = [rank, layer.in_features] if is_a else [layer.out_features, rank]
        if list(value.shape) != expected:
            raise StudioError(
                "adapter-other-base", **_bases(lora, base), tensor=key, actual=list(value.shape), expected=expected
            )


def _short_targets(lora: Lora, base: "Base") -> set[str]:
    """The modules of the file: by their last names where the file has all modules of these names, else in full."""
    modules = {_parts(key)[0] for key in lora.state}
    leaves = {_leaf(module) for module in modules}
    inside = [path for path, module in base.model.named_modules() if _leaf(path) in leaves]
    return leaves if set(inside) == modules else modules


def _layer(model: torch.nn.Module, path: str) -> Any:
    """The linear layer at `path` without an adapter around it; None where the base has none."""
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        return None
    layer = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    return layer if hasattr(layer, "in_features") else None


def _parts(key: str) -> tuple[str, str]:
    """(module, what comes behind) of a tensor's name; the last name is what comes behind where no part is LoRA's."""
    if found := _KEY.fullmatch(key):
        return found[1], found[2]
    module, _, rest = key.removeprefix(PREFIX).rpartition(".")
    return module, rest


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
