"""ChatGLM2's and ChatGLM3's vocabulary in the form in which llama.cpp's converter asks for it.

Copied beside a model that is converted and loaded there, in the converter's process: imports nothing of this package.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer


class ConverterTokenizer(PreTrainedTokenizer):
    """Names ids, nothing more: pieces by sentencepiece, then `special_names`, then nothing."""

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012

    def __init__(self, vocab_file: str, special_names: list[str], **kwargs: Any) -> None:
        pieces = SentencePieceProcessor(model_file=str(Path(vocab_file)))
        self.tokenizer = SimpleNamespace(sp_model=pieces)
        self._names = [pieces.IdToPiece(index) for index in range(pieces.GetPieceSize())] + special_names
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self._names)}

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.get_vocab().get(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else ""
