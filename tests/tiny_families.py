"""Folders of tiny random models of every family that transformers has built in: real config keys, small numbers.

The tokenizer is a small byte-level BPE trained here, with the special tokens and a chat template of GLM-4's form.
"""

import functools
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.tiny_base import rows

SPECIAL = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
_GLM = {"attention_bias": True, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}
_MIXTURE = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
# Keys and values of other widths than queries', as no released model has them.
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 6,
    "v_head_dim": 10,
}
# Every token looks at 24 others, chosen by layers of their own.
_SPARSE = {"index_topk": 24, "index_head_dim": 16, "index_n_heads": 2}
QUIRKS: dict[str, dict[str, object]] = {
    "glm": _GLM,
    "glm4": _GLM,
    "glm4_moe": _GLM | _MIXTURE,
    "glm4_moe_lite": _MIXTURE | _LATENT,
    "glm_moe_dsa": _MIXTURE | _LATENT | _SPARSE,
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "llama": {},
    "mistral": {"sliding_window": None},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 8},
}


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """About 300 tokens; ids 0–6 are `SPECIAL`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [f"{row.instruction} {row.input} {row.target} Instruction: Input: Answer:" for row in rows(60)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=SPECIAL[1:],
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def native_folder(model_type: str, folder: Path) -> Path:
    """Writes a tiny random model of `model_type` (a key of `QUIRKS`) with its tokenizer into `folder`, and gives it."""
    tokenizer = tiny_tokenizer()
    ids = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None}
    config = AutoConfig.for_model(model_type, **_SIZES | ids | {"vocab_size": len(tokenizer)} | QUIRKS[model_type])
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == model_type
    return folder
