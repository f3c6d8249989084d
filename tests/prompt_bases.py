"""A small tokenizer for every family whose prompts differ, and small chat templates of the manners that there are."""

import copy
import functools
from typing import Any

from glmstudio.models.families.chatglm import CHATGLM
from glmstudio.models.families.family import Family
from glmstudio.models.families.original_glm import CHATGLM2, CHATGLM3, GLM_4
from glmstudio.models.families.table import FAMILIES
from glmstudio.models.vocabularies.tokenization_glm import SentencePieceGlmTokenizer
from tests import tiny_base, tiny_families
from tests.small_vocabularies import sentencepiece_file

TURNS = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|observation|>\n{% endfor %}"
# What each template is like: a system text and an end of turn, no end and a line break, thinking that can be left out,
# thinking that a user's message switches off, thinking that is always opened, blanks trimmed and the end of the text.
TEMPLATES = {
    "turns": "<|system|>Help.<|observation|>\n" + TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "plain": tiny_families.CHAT_TEMPLATE,
    "thinking": (
        "{% for message in messages %}<|{{ message.role }}|>\n"
        "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}<|observation|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "switched": (
        "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n"
        "{% if message.role == 'user' %}{{ message.content }}"
        "{% if enable_thinking is defined and not enable_thinking %}/nothink{% endif %}"
        "{% else %}<think></think>\n{{ message.content | trim }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think></think>{% endif %}"
    ),
    "opened": (
        "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n"
        "{{ message.content.split('</think>')[-1] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think>{% endif %}"
    ),
    "trimmed": (
        "{% for message in messages %}{% if message.role == 'user' %}<sop>{{ message.content | trim }} <|user|>"
        "{% else %} {{ message.content | trim }} <|endoftext|>{% endif %}{% endfor %}"
    ),
}


def with_template(template: str | None) -> Any:
    """The small byte-level tokenizer with another chat template, or none."""
    tokenizer = copy.deepcopy(tiny_families.tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@functools.cache
def prompt_bases() -> dict[str, tuple[Any, Family]]:
    """(tokenizer, family) by name: the four forms of their own and the templates."""
    own = {
        "chatglm": (tiny_base.tiny_tokenizer(), CHATGLM),
        "chatglm2": (SentencePieceGlmTokenizer(sentencepiece_file(), CHATGLM2.words), CHATGLM2),
        "chatglm3": (SentencePieceGlmTokenizer(sentencepiece_file(), CHATGLM3.words), CHATGLM3),
        "glm-4": (tiny_families.tiny_tokenizer(), GLM_4),
    }
    return own | {name: (with_template(template), FAMILIES["qwen3"]) for name, template in TEMPLATES.items()}


BASES = ("chatglm", "chatglm2", "chatglm3", "glm-4", *TEMPLATES)
