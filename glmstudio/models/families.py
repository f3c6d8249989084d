"""A row for every model family: what its adapters attach to and how its prompts open the answer. Loads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glmstudio.errors import StudioError


@dataclass(frozen=True)
class Family:
    """`target_modules` are PEFT's names for LoRA; `opens_answer` the tokens between prompt and answer, empty where the
    tokenizer's own special tokens lead; `start_bears_loss` whether predicting the last of them counts in training."""

    name: str
    target_modules: tuple[str, ...] = ("all-linear",)
    opens_answer: tuple[str, ...] = ()
    start_bears_loss: bool = False


CHATGLM = Family(
    "chatglm",
    target_modules=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    opens_answer=("[gMASK]", "<sop>"),
    start_bears_loss=True,
)
# Keys that only the original configs of ChatGLM2, ChatGLM3 and GLM-4 have; all of them call themselves "chatglm" too.
LATER_CHATGLM_KEYS = frozenset({"ffn_hidden_size", "kv_channels", "multi_query_attention", "padded_vocab_size"})
SUPPORTED = "ChatGLM-6B, glm, glm4, llama, qwen2, qwen3, gemma3_text, mistral"


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`: ChatGLM-6B, or any causal model that transformers has built in.

    Raises StudioError `unsupported-family`, naming `source` and what is supported.
    """
    model_type = config.get("model_type", "")
    if model_type == CHATGLM.name:
        if LATER_CHATGLM_KEYS.isdisjoint(config):
            return CHATGLM
        model_type = "ChatGLM2 / ChatGLM3 / GLM-4 (chatglm)"
    else:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return Family(model_type)
    raise StudioError("unsupported-family", source=source, family=model_type or "?", supported=SUPPORTED)
