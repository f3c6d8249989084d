"""The table of model families, and which row a config.json belongs to. Knows configs only: loads nothing.

A family that transformers has built in is a line here; one with files of its own has a file beside this one.
"""

from collections.abc import Mapping
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.families.family import FAMILY_KEY, Family
from glmstudio.models.families.names import (
    ATTENTION,
    GLM_LINEAR,
    GLM_STOPS,
    LATENT_ATTENTION,
    LLAMA_LINEAR,
    is_original,
)
from glmstudio.models.families.original_glm import CHATGLM2, CHATGLM3, GLM_4, original_family

FAMILIES = {
    family.name: family
    for family in (
        CHATGLM,
        CHATGLM2,
        CHATGLM3,
        GLM_4,
        Family("glm", "GLM-4-9B-hf, GLM-Edge", GLM_LINEAR, stop_tokens=GLM_STOPS),
        Family("glm4", "GLM-4-0414, GLM-Z1", GLM_LINEAR, stop_tokens=GLM_STOPS),
        # PEFT puts an adapter on "gate_proj" and its kin on the fused experts too, and such a one answers alone only.
        # llama.cpp's converter counts layers that no file here holds unless it is told.
        Family(
            "glm4_moe",
            "GLM-4.5-Air",
            ATTENTION,
            stop_tokens=GLM_STOPS,
            llama_cpp_keys=(("num_nextn_predict_layers", 0),),
        ),
        # Their cache has narrow states from which keys and values are made anew, and GLM-5 looks at some tokens only.
        Family("glm4_moe_lite", "GLM-4.7-Flash", LATENT_ATTENTION, stop_tokens=GLM_STOPS, packs=False),
        Family("glm_moe_dsa", "GLM-5", LATENT_ATTENTION, stop_tokens=GLM_STOPS, packs=False),
        Family("qwen2", "Qwen2, Qwen2.5", LLAMA_LINEAR, stop_tokens=("<|im_end|>", "<|endoftext|>")),
        Family("qwen3", "Qwen3", LLAMA_LINEAR, stop_tokens=("<|im_end|>", "<|endoftext|>")),
        Family("llama", "Llama", LLAMA_LINEAR, stop_tokens=("<|eot_id|>",)),
        Family("mistral", "Mistral", LLAMA_LINEAR),
        Family("gemma3_text", "Gemma 3", LLAMA_LINEAR, stop_tokens=("<end_of_turn>",)),
    )
}
SUPPORTED = ", ".join(dict.fromkeys(family.title for family in FAMILIES.values()))


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`: a row of the table, or any causal model that transformers has built in.

    Raises StudioError `config-no-type`, `family-encoder`, and `unsupported-family`, naming `source` and what is
    supported.
    """
    model_type = config.get("model_type", "")
    if not model_type:
        raise StudioError("config-no-type", source=source)
    if is_original(config):
        return original_family(config, source)
    if model_type == "glm" and config.get(FAMILY_KEY) in FAMILIES:
        return FAMILIES[config[FAMILY_KEY]]
    if model_type in FAMILIES and not FAMILIES[model_type].converted:
        return FAMILIES[model_type]
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        # transformers would load half of it: the part that writes, without the one that reads.
        if config.get("is_encoder_decoder"):
            raise StudioError("family-encoder", family=model_type, source=source)
        return Family(model_type, model_type)
    raise StudioError("unsupported-family", source=source, family=model_type, supported=SUPPORTED)
