"""Texts to token ids, many at once: a tokenizer's backend does so without Python, and lets other threads run meanwhile.

Knows tokenizers; knows no prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glmstudio.models.transformers_internals import encodes_by_its_backend

# Characters of a text that are counted while somebody waits: several times what any row here is trained with.
MOST_COUNTED = 20_000


@dataclass(frozen=True)
class TokenCount:
    """The tokens of a text, or, with `more`, of its beginning: it has more than that."""

    tokens: int
    more: bool = False

    @classmethod
    def of(cls, tokenizer: Any, text: str, most: int) -> "TokenCount":
        """Of the first `most` characters, without special tokens."""
        return cls(len(tokenizer.encode(text[:most], add_special_tokens=False)), len(text) > most)


def encoded(tokenizer: Any, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
    """What `tokenizer.encode` gives for each text, with the special tokens that it adds or without."""
    if len(texts) < 2 or not encodes_by_its_backend(tokenizer):
        return [tokenizer.encode(text, add_special_tokens=special) for text in texts]
    # The first one sets the backend as the tokenizer wants it.
    first = tokenizer.encode(texts[0], add_special_tokens=special)
    rest = tokenizer.backend_tokenizer.encode_batch_fast(texts[1:], add_special_tokens=special)
    return [first, *(found.ids for found in rest)]
