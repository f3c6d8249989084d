"""ChatGLM2, ChatGLM3 and GLM-4 in their original form become transformers' GlmForCausalLM: names, splits, config.

One shard is in memory beside the model. Knows no text; folders are rewritten in `converting`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GlmConfig, GlmForCausalLM

from glmstudio.errors import StudioError
from glmstudio.models.checkpoint_files import refuse_misfit, refuse_missing, tensors, weight_files
from glmstudio.models.families.family import FAMILY_KEY, Family
from glmstudio.models.quantisation.quantised import quantisation_of, use_packed_layers
from glmstudio.models.quantisation.quantising import Shrink, leave
from glmstudio.models.stored_tensors import StoredTensors

NOT_LOADED = re.compile(r"rotary_pos_emb\.inv_freq$|^transformer\.prefix_encoder\.")
ROPE_THETA = 10000.0
# What the original code can do besides; no published model does.
FIXED = {
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
}
_TOP = {
    "transformer.embedding.word_embeddings": "model.embed_tokens",
    "transformer.encoder.final_layernorm": "model.norm",
    "transformer.output_layer": "lm_head",
}
_IN_LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attention.dense": "self_attn.o_proj",
    "post_attention_layernorm": "post_attention_layernorm",
    "mlp.dense_h_to_4h": "mlp.gate_up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
_FUSED = "self_attention.query_key_value"
_OFFICIAL_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
_NATIVE_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class GlmNames:
    """Module names of the original form and of GlmForCausalLM, and how the fused rows fall apart.

    The rows of `query_key_value` are `query_rows` of q, then `key_rows` of k, then as many of v. Names have no
    ".weight" or ".bias" at their end; whatever comes after a module's name in a tensor's name is kept.
    """

    query_rows: int
    key_rows: int

    @classmethod
    def of(cls, config: GlmConfig) -> "GlmNames":
        """The splits of a converted model's config."""
        return cls(config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim)

    @property
    def splits(self) -> dict[str, slice]:
        """Native module name inside a layer -> its rows of the fused `query_key_value`."""
        ends = (self.query_rows, self.query_rows + self.key_rows, self.query_rows + 2 * self.key_rows)
        starts = (0, *ends[:2])
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        return {name: slice(*rows) for name, *rows in zip(names, starts, ends, strict=True)}

    def native(self, module: str) -> dict[str, slice]:
        """Native names of an original module, each with its rows of the original tensor; empty for a foreign name."""
        if module in _TOP:
            return {_TOP[module]: slice(None)}
        found = _OFFICIAL_LAYER.fullmatch(module)
        if not found:
            return {}
        inside = self.splits if found[2] == _FUSED else {}
        if found[2] in _IN_LAYER:
            inside = {_IN_LAYER[found[2]]: slice(None)}
        return {f"model.layers.{found[1]}.{name}": rows for name, rows in inside.items()}

    def official(self, module: str) -> str | None:
        """The original name of a native module (q, k and v have the same one); None for a foreign name."""
        for official, native in _TOP.items():
            if module == native:
                return official
        found = _NATIVE_LAYER.fullmatch(module)
        if not found:
            return None
        inside = {native: official for official, native in _IN_LAYER.items()} | dict.fromkeys(self.splits, _FUSED)
        return f"transformer.encoder.layers.{found[1]}.{inside[found[2]]}" if found[2] in inside else None

    def official_tensor(self, tensor: str) -> str:
        """The original name of a native tensor that the model has."""
        module, _, kind = tensor.rpartition(".")
        return f"{self.official(module)}.{kind}"


def glm_config(config: Mapping[str, Any], family: Family) -> GlmConfig:
    """The config of GlmForCausalLM for an original `config.json`.

    ChatGLM3 and GLM-4 multiply the base of the rotary angles by `rope_ratio`, ChatGLM2 divides positions by it.
    Raises ValueError, KeyError or TypeError where the config describes no such model.
    """
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key}={config[key]} is not supported")
    ratio, heads = config.get("rope_ratio", 1), config["num_attention_heads"]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": ROPE_THETA, "partial_rotary_factor": 0.5}
    if not family.stretches_positions:
        rope["rope_theta"] = ROPE_THETA * ratio
    elif ratio != 1:
        rope |= {"rope_type": "linear", "factor": float(ratio)}
    return GlmConfig(
        architectures=["GlmForCausalLM"],
        vocab_size=config["padded_vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config["multi_query_group_num"] if config.get("multi_query_attention") else heads,
        head_dim=config["kv_channels"],
        max_position_embeddings=config["seq_length"],
        rms_norm_eps=config["layernorm_epsilon"],
        rope_parameters=rope,
        attention_bias=config.get("add_qkv_bias", False),
        attention_dropout=config.get("attention_dropout", 0.0),
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        bos_token_id=config.get("bos_token_id"),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 0),
        **{FAMILY_KEY: family.name},
    )


def empty_model(folder: Path, config: Mapping[str, Any], family: Family) -> tuple[GlmForCausalLM, GlmNames]:
    """The model of an original config without numbers, and its names. Raises StudioError `config-unfit`."""
    try:
        model_config = glm_config(config, family)
        with torch.device("meta"):
            return GlmForCausalLM(model_config), GlmNames.of(model_config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, KeyError, StrictDataclassError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise StudioError("config-unfit", file=str(folder / "config.json"), reason=reason) from error


def load_original(
    folder: Path,
    config: Mapping[str, Any],
    family: Family,
    device: torch.device,
    dtype: torch.dtype,
    shrink: Shrink = leave,
) -> GlmForCausalLM:
    """The model of a folder in original form, its tensors renamed and split shard by shard, packed ones as they are.

    `shrink` is called after every shard. Raises StudioError `base-quantized`, `config-unfit`, `tensors-missing` and
    whatever is wrong with a shard.
    """
    quantization = quantisation_of(config, str(folder))
    files = weight_files(folder)
    model, names = empty_model(folder, config, family)
    model.config.dtype = dtype
    kinds = use_packed_layers(model, quantization)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing = set(shapes) - ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    for file in files:
        for stored_name, value in tensors(file):
            for name, part in native_tensors(names, shapes, file, stored_name, value, kinds).items():
                placed = part.to(device=device, dtype=kinds.get(name, dtype), copy=True)
                model.load_state_dict({name: placed}, strict=False, assign=True)
                missing.discard(name)
        shrink(model)
    refuse_missing(folder, {names.official_tensor(name) for name in missing})
    # The table of rotary frequencies is no weight: it was made without numbers, like everything on "meta".
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    model.tie_weights()
    return model


def native_tensors(
    names: GlmNames,
    shapes: Mapping[str, tuple[int, ...]],
    file: Path,
    stored_name: str,
    value: torch.Tensor,
    kinds: Mapping[str, torch.dtype] = MappingProxyType({}),
) -> dict[str, torch.Tensor]:
    """Native names and views for one stored tensor; none for the frequency table, which is computed.

    `kinds` are number types by native name, where there is no choice. Raises StudioError `tensor-foreign` and
    `tensor-shape`.
    """
    if NOT_LOADED.search(stored_name):
        return {}
    module, _, kind = stored_name.rpartition(".")
    parts = {f"{name}.{kind}": rows for name, rows in names.native(module).items()}
    known = [shapes[name] for name in parts if name in shapes]
    shape = (sum(rows for rows, *_ in known), *known[0][1:]) if known and len(known) == len(parts) else None
    refuse_misfit(file, stored_name, value, shape, packed=any(kinds.get(name) == torch.int8 for name in parts))
    return {name: value[rows] for name, rows in parts.items()}


def original_stored_tensors(folder: Path, config: Mapping[str, Any], family: Family) -> StoredTensors:
    """The tensors of GlmForCausalLM for an original config. Raises as `glm_config` does."""
    model_config = glm_config(config, family)
    with torch.device("meta"):
        model: Any = GlmForCausalLM(model_config)
    kinds = use_packed_layers(model, quantisation_of(config, str(folder)))
    tensors, names = dict(model.state_dict()), GlmNames.of(model_config)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}

    return StoredTensors(
        tensors,
        lambda file, name, value: native_tensors(names, shapes, file, name, value, kinds).keys(),
        names.official_tensor,
    )
