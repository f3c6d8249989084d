"""Words beside the pieces of ChatGLM2's and ChatGLM3's sentencepiece vocabularies. Data only."""

from dataclasses import dataclass

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
OPENING = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
WRITTEN_OPENING = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")


@dataclass(frozen=True)
class SentencepieceWords:
    """`special` are the special tokens, in the order of their ids, of which `roles` are ChatGLM3's; `named` whether
    they are decoded to their names, or to nothing. `chat_template` is for plain transformers; blanks in front of a
    message there stand for the prefix that each message has in the original, encoded by itself."""

    roles: tuple[str, ...]
    named: bool
    chat_template: str

    @property
    def special(self) -> tuple[str, ...]:
        return OPENING + self.roles


CHATGLM2_WORDS = SentencepieceWords(
    roles=(),
    named=False,
    chat_template=(
        "[gMASK]<sop>{% set ns = namespace(round=0) %}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{% set ns.round = ns.round + 1 %}"
        "[Round {{ ns.round }}]\n\n问：{{ message['content'] }}\n\n答："
        "{% elif message['role'] == 'assistant' %}{{ message['content'] }}"
        "{% if not loop.last %}{{ '\n\n' }}{% endif %}{% endif %}{% endfor %}"
    ),
)
CHATGLM3_WORDS = SentencepieceWords(
    roles=ROLES,
    named=True,
    chat_template=(
        "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>{{ message['metadata'] }}\n"
        "{% if message['content'] %} {{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
)
