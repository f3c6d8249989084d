"""Tokenizers of ChatGLM2, ChatGLM3 and GLM-4 from their original `tokenizer.model`.

In ChatGLM2 and ChatGLM3 no special token is ever read from text, as in the original. What they save is for plain
transformers: a tokenizer.json whose special tokens are read from text, for its chat template writes them as text.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from glmstudio.models.checkpoint_files import read_json
from glmstudio.models.vocabularies.sentencepiece_words import ROLES, WRITTEN_OPENING, SentencepieceWords
from glmstudio.models.vocabularies.vocabulary_files import sentencepiece_backend, text_of_pieces, tiktoken_backend

VOCABULARY = "tokenizer.model"
GLM_4_END = "<|endoftext|>"
GLM_4_MEDIA = tuple(f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end"))
_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
_MANNERS: dict[str, Any] = {
    "padding_side": "left",
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
}
_GLM_4_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>{{ message['metadata'] }}\n"
    "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class WrittenGlmTokenizer(PreTrainedTokenizerFast):
    """A tokenizer whose special tokens are read from text. Saved under the class name that every transformers knows."""

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> tuple[str, ...]:
        files = super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / "tokenizer_config.json"
        config = read_json(path) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        return files


class SentencePieceGlmTokenizer(PreTrainedTokenizerFast):
    """ChatGLM2's and ChatGLM3's tokenizer, equal to the original in ids, pieces and decoded text.

    A text is led by `[gMASK] sop`, a second one is closed by `</s>`; pads go to the left. `split_special_tokens=False`
    in a call reads ChatGLM3's role tokens from text. Made by `read_sentencepiece`, from the bytes of the file.
    """

    def __init__(self, vocabulary: bytes, words: SentencepieceWords, **kwargs: Any) -> None:
        self._vocabulary, self._words = vocabulary, words
        self._silent = {*_TOKENS.values(), *(() if words.named else words.special)}
        backend = sentencepiece_backend(vocabulary, words.special)
        backend.add_special_tokens([AddedToken(role, special=True, normalized=False) for role in words.roles])
        _lead_with(backend, "[gMASK]", "sop", closing="</s>")
        super().__init__(
            tokenizer_object=backend,
            chat_template=words.chat_template,
            split_special_tokens=True,
            **_TOKENS | _MANNERS | kwargs,
        )

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[gMASK] sop` and the ids of a context; with a second list its answer closed by `</s>`."""
        ids = [*self.convert_tokens_to_ids(["[gMASK]", "sop"]), *token_ids_0]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.eos_token_id]

    @cached_property
    def written(self) -> WrittenGlmTokenizer:
        """The same vocabulary as plain transformers gets it: `sop` is called `<sop>`, special tokens are read from text
        and left out of decoded text where that is asked."""
        extra = WRITTEN_OPENING + self._words.roles
        backend = sentencepiece_backend(self._vocabulary, extra)
        _lead_with(backend, "[gMASK]", "<sop>", closing="</s>")
        return WrittenGlmTokenizer(
            tokenizer_object=backend,
            extra_special_tokens=list(extra),
            chat_template=self._words.chat_template,
            **_TOKENS | _MANNERS,
        )

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """The official chat prompt. Role tokens that somebody typed into a message are read as role tokens here."""
        return self.written.apply_chat_template(*args, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> tuple[str, ...]:
        """Writes the original vocabulary, from which this class reads itself, and `written` for plain transformers."""
        files = self.written.save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / VOCABULARY
        path.write_bytes(self._vocabulary)
        return (*files, str(path))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces, without those that the original writes as nothing."""
        return text_of_pieces(token for token in tokens if token not in self._silent)

    def _decode(self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs: Any) -> str:
        # The original names none of its tokens special, so nothing is skipped; rows beyond the pieces are nothing.
        pieces = map(self.backend_tokenizer.id_to_token, [token_ids] if isinstance(token_ids, int) else token_ids)
        return self.convert_tokens_to_string([piece for piece in pieces if piece is not None])


def read_sentencepiece(folder: Path, words: SentencepieceWords) -> SentencePieceGlmTokenizer:
    """The tokenizer of a ChatGLM2 or ChatGLM3 folder. Raises ValueError where `tokenizer.model` is something else."""
    return SentencePieceGlmTokenizer((folder / VOCABULARY).read_bytes(), words)


def read_tiktoken(folder: Path) -> WrittenGlmTokenizer:
    """The tokenizer of a GLM-4 folder in original form. Special tokens are read from text, as in the original.

    Names and ids of the special tokens and the chat template are those of tokenizer_config.json where it has them.
    Raises ValueError where `tokenizer.model` is something else.
    """
    data = (folder / VOCABULARY).read_bytes()
    stored = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    named = {token["content"]: int(index) for index, token in stored.get("added_tokens_decoder", {}).items()}
    default = (GLM_4_END, *WRITTEN_OPENING, *ROLES, *GLM_4_MEDIA)
    size = len(data.splitlines())
    extra = named or {token: size + index for index, token in enumerate(default)}
    backend = tiktoken_backend(data, extra)
    _lead_with(backend, "[gMASK]", "<sop>")
    return WrittenGlmTokenizer(
        tokenizer_object=backend,
        eos_token=GLM_4_END,
        pad_token=GLM_4_END,
        extra_special_tokens=[token for token in extra if token != GLM_4_END],
        chat_template=stored.get("chat_template") or _GLM_4_TEMPLATE,
        **_MANNERS,
    )


def _lead_with(backend: Tokenizer, *opening: str, closing: str | None = None) -> None:
    """Puts `opening` in front of a text with special tokens, and `closing` behind a second text."""
    tokens = [*opening, *([closing] if closing else [])]
    backend.post_processor = processors.TemplateProcessing(
        single=[*opening, "$A"],
        pair=[*opening, "$A", "$B", *([closing] if closing else [])],
        special_tokens=[(token, backend.token_to_id(token)) for token in tokens],
    )
