"""Random models of a given size as a loaded base, and their tokenizer of numbers. Knows no data and no clock."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GenerationConfig,
    GlmConfig,
    GlmForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from glmstudio.benchmarks.rows import FIRST_WORD
from glmstudio.errors import StudioError
from glmstudio.models.base import Base
from glmstudio.models.chatglm.configuration_chatglm import ChatGLMConfig
from glmstudio.models.chatglm.modeling_chatglm import ChatGLMForConditionalGeneration
from glmstudio.models.devices import chosen_device, chosen_dtype
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.quantisation.quantising import shrink_to
from glmstudio.settings import LoraSettings

SEED = 7
VOCABULARY = 16384
SIX_BILLION = "6b"
SPECIAL = ("[UNK]", "<pad>", "<eop>", "[gMASK]", "<sop>", "[MASK]")
PAD, END, GMASK, START, MASK = range(1, len(SPECIAL))


@dataclass(frozen=True)
class Shape:
    """A model to make: `size` is hidden × layers as in "512x12", or "6b" for the sizes of ChatGLM-6B itself."""

    family: str
    size: str
    dtype: str = "fp32"
    quantization: str = "none"

    @property
    def vocabulary(self) -> int:
        return ChatGLMConfig.vocab_size if self.size == SIX_BILLION else VOCABULARY

    @property
    def sizes(self) -> tuple[int, int]:
        """(hidden size, layers). Raises StudioError `bench-size`."""
        published = KINDS[self.family].published
        if self.size == SIX_BILLION and published is not None:
            return published
        found = re.fullmatch(r"(\d+)x(\d+)", self.size)
        if found is None or int(found[1]) % 64 or not int(found[2]):
            raise StudioError("bench-size", size=self.size, family=self.family)
        return int(found[1]), int(found[2])

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def random_base(shape: Shape, device: str = "auto") -> Base:
    """The same weights for the same shape on the same kind of device; GLM has GLM-Edge's proportions (feed-forward
    three times the width, a quarter of the heads for keys), ChatGLM those of ChatGLM-6B."""
    where = chosen_device(device)
    dtype = chosen_dtype(shape.dtype, where)
    kind = KINDS[shape.family]
    config = kind.config(shape)
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(SEED)
        with torch.device(where):
            model = kind.model(config)
    finally:
        torch.set_default_dtype(former)
    shrink_to(shape.quantization, where, dtype)(model)
    model.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD)
    name = f"{shape.family}-{shape.size}"
    model.config.name_or_path = model.name_or_path = name
    tokenizer = number_tokenizer(shape.vocabulary)
    return Base(model.eval(), tokenizer, FAMILIES[shape.family], name, where, dtype, shape.quantization)


def number_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a word: "17" is id 17; the ids under `FIRST_WORD` are special, and other words are id 0."""
    words = {token: number for number, token in enumerate(SPECIAL)}
    words |= {str(number): number for number in range(len(SPECIAL), vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    assert len(SPECIAL) <= FIRST_WORD
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="<pad>", eos_token="<eop>", padding_side="left"
    )


def _heads(hidden: int) -> int:
    return hidden // (64 if hidden >= 256 else 16)


def _glm(shape: Shape) -> GlmConfig:
    hidden, layers = shape.sizes
    heads = _heads(hidden)
    return GlmConfig(
        vocab_size=shape.vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        head_dim=hidden // heads,
        max_position_embeddings=2048,
        attention_bias=False,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=END,
    )


def _chatglm(shape: Shape) -> ChatGLMConfig:
    hidden, layers = shape.sizes
    return ChatGLMConfig(
        vocab_size=shape.vocabulary,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=32 if shape.size == SIX_BILLION else _heads(hidden),
        inner_hidden_size=4 * hidden,
        bos_token_id=START,
        eos_token_id=END,
        mask_token_id=MASK,
        gmask_token_id=GMASK,
        pad_token_id=PAD,
        # With tied, small weights a random model of this form says the last token again, whatever the adapter.
        tie_word_embeddings=False,
        residual_alpha=(2 * layers) ** 0.5,
        initializer_range=hidden**-0.5,
    )


@dataclass(frozen=True)
class Kind:
    """How a family's models are made and trained; `published` are the hidden size and the layers of "6b"."""

    config: Callable[[Shape], PreTrainedConfig]
    model: type[PreTrainedModel]
    lora: LoraSettings
    published: tuple[int, int] | None = None


KINDS = {
    "glm": Kind(_glm, GlmForCausalLM, LoraSettings(r=8, target_modules=("q_proj", "k_proj", "v_proj"))),
    "chatglm": Kind(
        _chatglm,
        ChatGLMForConditionalGeneration,
        LoraSettings(r=8, target_modules=("query_key_value",)),
        (ChatGLMConfig.hidden_size, ChatGLMConfig.num_layers),
    ),
}
LORA = {name: kind.lora for name, kind in KINDS.items()}
