"""Names that several families share: layers that LoRA attaches to, tokens that end an answer, keys of configs."""

from collections.abc import Mapping
from typing import Any

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
# Multi-head latent attention: queries, and keys and values, through a narrow layer each.
LATENT_ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
GLM_LINEAR = (*ATTENTION, "gate_up_proj", "down_proj")
LLAMA_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
GLM_STOPS = ("<|endoftext|>", "<|user|>", "<|observation|>")
# Keys that only the original configs of ChatGLM2, ChatGLM3 and GLM-4 have; all of them call themselves "chatglm" too.
LATER_CHATGLM_KEYS = frozenset({"ffn_hidden_size", "kv_channels", "multi_query_attention", "padded_vocab_size"})


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a parsed `config.json` is the original form of ChatGLM2, ChatGLM3 or GLM-4."""
    return config.get("model_type") == "chatglm" and not LATER_CHATGLM_KEYS.isdisjoint(config)
