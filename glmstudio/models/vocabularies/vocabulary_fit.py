"""Whether a model has a row for every token of its tokenizer. Knows no files."""

from typing import Any

from glmstudio.errors import StudioError


def tokens_in_use(tokenizer: Any) -> int:
    """One more than the highest id that a text, or what is put around it, can become.

    Special tokens that are neither are left out: Gemma 3's text models have one for images, and no row for it.
    """
    around = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, *tokenizer.encode("")]
    added = tokenizer.added_tokens_decoder.items()
    typed = [index for index, token in added if not token.special]
    return max([tokenizer.vocab_size, *(index + 1 for index in (*around, *typed) if index is not None)])


def refuse_larger_vocabulary(tokenizer: Any, rows: int, folder: str) -> None:
    """Raise StudioError `vocabulary-misfit` where an embedding of `rows` has none for some token."""
    tokens = tokens_in_use(tokenizer)
    if tokens > rows:
        raise StudioError("vocabulary-misfit", folder=folder, tokens=tokens, rows=rows)
