"""A row for every model family: what its adapters attach to, how its prompts open the answer, where answers end.

Knows configs only: loads nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glmstudio.errors import StudioError
from glmstudio.models.prompts.chat_forms import CHATGLM2_FORM, CHATGLM3_FORM, CHATGLM_FORM, GLM4_FORM, ChatForm

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GLM_LINEAR = (*ATTENTION, "gate_up_proj", "down_proj")
LLAMA_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
GLM_STOPS = ("<|endoftext|>", "<|user|>", "<|observation|>")


@dataclass(frozen=True)
class Family:
    """`title` is the name that people know. `target_modules` are PEFT's names for LoRA; `opens_answer` the tokens
    between prompt and answer, empty where the tokenizer's own special tokens lead; `start_bears_loss` whether
    predicting the last of them counts in training. `stop_tokens` end an answer besides the config's end ids.
    `chat` is the form of its dialogue, None where the tokenizer's chat template has it.
    `converted`: the original form becomes transformers' GlmForCausalLM while loading."""

    name: str
    title: str
    target_modules: tuple[str, ...] = ("all-linear",)
    opens_answer: tuple[str, ...] = ()
    start_bears_loss: bool = False
    stop_tokens: tuple[str, ...] = ()
    chat: ChatForm | None = None
    converted: bool = False


CHATGLM = Family(
    "chatglm",
    "ChatGLM-6B",
    target_modules=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    opens_answer=("[gMASK]", "<sop>"),
    start_bears_loss=True,
    chat=CHATGLM_FORM,
)
CHATGLM2 = Family("chatglm2", "ChatGLM2-6B", GLM_LINEAR, chat=CHATGLM2_FORM, converted=True)
CHATGLM3 = Family(
    "chatglm3",
    "ChatGLM3-6B",
    GLM_LINEAR,
    stop_tokens=("<|user|>", "<|observation|>"),
    chat=CHATGLM3_FORM,
    converted=True,
)
GLM_4 = Family("glm-4", "GLM-4-9B", GLM_LINEAR, stop_tokens=GLM_STOPS, chat=GLM4_FORM, converted=True)
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
        Family("glm4_moe", "GLM-4.5-Air", ATTENTION, stop_tokens=GLM_STOPS),
        Family("qwen2", "Qwen2, Qwen2.5", LLAMA_LINEAR, stop_tokens=("<|im_end|>", "<|endoftext|>")),
        Family("qwen3", "Qwen3", LLAMA_LINEAR, stop_tokens=("<|im_end|>", "<|endoftext|>")),
        Family("llama", "Llama", LLAMA_LINEAR, stop_tokens=("<|eot_id|>",)),
        Family("mistral", "Mistral", LLAMA_LINEAR),
        Family("gemma3_text", "Gemma 3", LLAMA_LINEAR, stop_tokens=("<end_of_turn>",)),
    )
}
# Written into the config.json of a converted folder, whose model_type is "glm" whatever it was before.
FAMILY_KEY = "glmstudio_family"
# Keys that only the original configs of ChatGLM2, ChatGLM3 and GLM-4 have; all of them call themselves "chatglm" too.
LATER_CHATGLM_KEYS = frozenset({"ffn_hidden_size", "kv_channels", "multi_query_attention", "padded_vocab_size"})
# ChatGLM2 and ChatGLM3 have 65024 rows, GLM-4 151552.
GLM_4_VOCABULARY = 100_000
SUPPORTED = ", ".join(dict.fromkeys(family.title for family in FAMILIES.values()))


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a parsed `config.json` is the original form of ChatGLM2, ChatGLM3 or GLM-4."""
    return config.get("model_type") == CHATGLM.name and not LATER_CHATGLM_KEYS.isdisjoint(config)


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`: a row of the table, or any causal model that transformers has built in.

    Raises StudioError `config-no-type`, `family-encoder`, and `unsupported-family`, naming `source` and what is
    supported.
    """
    model_type = config.get("model_type", "")
    if not model_type:
        raise StudioError("config-no-type", source=source)
    if is_original(config):
        return _original(config, source)
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


def _original(config: Mapping[str, Any], source: str) -> Family:
    """GLM-4 has several end ids and a larger vocabulary; ChatGLM2 and ChatGLM3 differ in no key that changes numbers,
    but in the name they came under and in the transformers they were published with."""
    if isinstance(config.get("eos_token_id"), list) or config.get("padded_vocab_size", 0) > GLM_4_VOCABULARY:
        return GLM_4
    published = {"4.27.1": CHATGLM2.name, "4.30.2": CHATGLM3.name}.get(str(config.get("transformers_version")), "")
    for trace in (str(config.get("_name_or_path", "")), published, source):
        for family in (CHATGLM2, CHATGLM3):
            if family.name in trace.lower():
                return family
    return CHATGLM3
