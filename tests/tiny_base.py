"""A ChatGLM-6B with random weights, two layers and 32 numbers a token, for tests that train and answer in seconds."""

from types import SimpleNamespace

import torch

from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration


def tiny_model(dtype: torch.dtype = torch.float32) -> ChatGLMForConditionalGeneration:
    config = ChatGLMConfig(
        vocab_size=96,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        inner_hidden_size=64,
        bos_token_id=4,
        eos_token_id=5,
        mask_token_id=2,
        gmask_token_id=3,
        pad_token_id=1,
        residual_alpha=2.0,
        initializer_range=0.1,
    )
    torch.manual_seed(7)
    return ChatGLMForConditionalGeneration(config).to(dtype)


def tiny_base(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    return SimpleNamespace(
        model=tiny_model(dtype),
        source="tiny",
        device=torch.device("cpu"),
        dtype=dtype,
        family=SimpleNamespace(name="chatglm", target_modules=("query_key_value", "dense")),
    )
