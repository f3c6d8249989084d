"""A ChatGLM-6B of two layers with random weights and a tokenizer trained here, for tests that train in seconds."""

import functools
import io
import tempfile
from pathlib import Path

import sentencepiece
import torch

from glmstudio.data.example import Example
from glmstudio.models.base import Base
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.chatglm.tokenization_chatglm import ChatGLMTokenizer
from glmstudio.models.families.chatglm import CHATGLM

CITIES = ("Paris", "Rome", "Oslo", "Bern", "Cairo", "Lima")
COLOURS = ("red", "green", "blue", "grey", "pink")


def rows(count: int, *, split: str = "train", first: int = 0) -> list[Example]:
    """Examples of very different lengths whose target repeats a word of the input."""
    made = []
    for number in range(first, first + count):
        city, colour = CITIES[number % len(CITIES)], COLOURS[number % len(COLOURS)]
        filler = " ".join(COLOURS[: number % 5]) if number % 3 else ""
        text = f"{number} {city} is {colour}. {filler}".strip()
        target = f'[{{"city": "{city}"}}]' if number % 2 else colour
        made.append(Example("Name it.", text, target, split=split))
    return made


@functools.cache
def tiny_tokenizer() -> ChatGLMTokenizer:
    text = "\n".join(f"{row.instruction} {row.input} {row.target} Instruction: Input: Answer:" for row in rows(60))
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_writer=proto,
        model_type="char",
        vocab_size=90,
        hard_vocab_limit=False,
        pad_id=1,
        pad_piece="<pad>",
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[MASK]", "[gMASK]", "<sop>", "<eop>", "</s>"],
        user_defined_symbols=["<n>", "<|tab|>"],
        minloglevel=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ice_text.model"
        path.write_bytes(proto.getvalue())
        return ChatGLMTokenizer(str(path), num_image_tokens=0)


def tiny_model(dtype: torch.dtype = torch.float32) -> ChatGLMForConditionalGeneration:
    tokenizer = tiny_tokenizer()
    config = ChatGLMConfig(
        vocab_size=104,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        inner_hidden_size=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        mask_token_id=tokenizer.mask_token_id,
        gmask_token_id=tokenizer.gmask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        residual_alpha=2.0,
        initializer_range=0.1,
    )
    torch.manual_seed(7)
    return ChatGLMForConditionalGeneration(config).to(dtype)


def tiny_base(dtype: torch.dtype = torch.float32) -> Base:
    return Base(tiny_model(dtype), tiny_tokenizer(), CHATGLM, "tiny", torch.device("cpu"), dtype)
