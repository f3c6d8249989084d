"""A rendered row token by token, for a person to read: what the model sees and which tokens bear loss.

Knows tokenizers of every kind by the names of their tokens; knows no page and no model.
"""

import re
import sys
from dataclasses import dataclass
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from glmstudio.models.chat_format import Rendered, render_example, render_prompt
from glmstudio.models.families.family import Family
from glmstudio.settings import TrainingSettings

BLANK = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}
# Bytes that are no UTF-8 come out of the decoder as these characters, the byte in the last two digits.
_LONE_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Piece:
    """One token. `text` is what it stands for; a byte that is only part of a character is written as ⟨E4⟩, a special
    token by its name. `bears_loss`: training counts how well it is predicted."""

    text: str
    id: int
    bears_loss: bool
    in_prompt: bool


@dataclass(frozen=True)
class Preview:
    """A training row. The first `prompt_length` pieces are what the model is given when it answers; `cut_prompt` and
    `cut_target` count the tokens that did not fit. `cuts`: in front of which piece how many are missing."""

    pieces: list[Piece]
    prompt_length: int
    cut_prompt: int
    cut_target: int
    cuts: dict[int, int]


def preview_row(
    tokenizer: Any, family: Family, instruction: str, input: str, target: str, settings: TrainingSettings
) -> Preview:
    """A row as training with `settings` shows it to the model. Raises StudioError as `render_example` does."""
    texts, style = (instruction, input), settings.prompt_style
    row = render_example(
        tokenizer,
        family,
        *texts,
        target,
        max_source_length=settings.max_source_length,
        max_target_length=settings.max_target_length,
        style=style,
    )
    cuts = {len(row.ids) - 1: row.cut_target} if row.cut_target else {}
    if row.cut_prompt:
        whole = render_prompt(tokenizer, family, *texts, max_source_length=sys.maxsize, style=style).ids
        pairs = enumerate(zip(row.ids[: row.prompt_length], whole, strict=False))
        cuts[next((place for place, (kept, was) in pairs if kept != was), row.prompt_length)] = row.cut_prompt
    return Preview(preview(tokenizer, row), row.prompt_length, row.cut_prompt, row.cut_target, cuts)


def preview(tokenizer: Any, rendered: Rendered) -> list[Piece]:
    """The pieces of a row, one a token."""
    texts = _texts(tokenizer, rendered.ids)
    return [
        Piece(texts[token], token, bears, place < rendered.prompt_length)
        for place, (token, bears) in enumerate(zip(rendered.ids, rendered.bears_loss, strict=True))
    ]


def _texts(tokenizer: Any, ids: list[int]) -> dict[int, str]:
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    names = {token: tokenizer.convert_ids_to_tokens(token) for token in set(ids)}
    return {token: name if token in special else _text(tokenizer, token, name) for token, name in names.items()}


def _text(tokenizer: Any, token: int, name: str) -> str:
    """What a token stands for: sentencepiece names its bytes and writes a blank as ▁, byte-level BPE writes every
    byte as a character of its own."""
    if byte := _BYTE_PIECE.fullmatch(name):
        return _readable(bytes([int(byte[1], 16)]))
    if BLANK in name:
        return name.replace(BLANK, " ")
    text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if "\ufffd" not in text and text:
        return text
    if all(character in _BYTE_OF_CHARACTER for character in name):
        return _readable(bytes(_BYTE_OF_CHARACTER[character] for character in name))
    return name


def _readable(raw: bytes) -> str:
    text = raw.decode("utf-8", errors="surrogateescape")
    return _LONE_BYTE.sub(lambda lone: f"⟨{ord(lone[0]) & 0xFF:02X}⟩", text)
