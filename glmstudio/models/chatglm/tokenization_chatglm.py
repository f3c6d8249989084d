"""ChatGLM-6B's tokenizer: a sentencepiece model with line breaks, tabs and runs of blanks written as pieces.

Text to ids and back; knows no prompt layout beyond the closing `[gMASK] <sop>`, no model and no positions.
"""

import re
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import AddedToken, PreTrainedTokenizer

VOCAB_FILES_NAMES = {"vocab_file": "ice_text.model"}
LONGEST_BLANK_RUN = 80
IMAGE_TOKEN = re.compile(r"<image_(\d+)>")
WRITTEN_BLANKS = re.compile(r"<n>|<\|tab\|>|<\|blank_(\d+)\|>")


class ChatGLMTokenizer(PreTrainedTokenizer):
    """The tokenizer of the official `ice_text.model`, and of any sentencepiece model with the same special pieces.

    `num_image_tokens` ids come before the pieces (20000 in the first release, 0 in v1.1). Special tokens in a text
    are parsed and swallow the blanks around them, except `[gMASK]`, which stays text. Pads go to the left.
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        end_token: str = "</s>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        num_image_tokens: int = 20000,
        clean_up_tokenization_spaces: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_file = vocab_file
        self.num_image_tokens = num_image_tokens
        self.gmask_token = gmask_token
        self.end_token = end_token
        self.sp_model = SentencePieceProcessor(model_file=str(vocab_file))
        size = self.sp_model.GetPieceSize()
        self._unknown_piece = self.sp_model.unk_id()
        longest = max((n for n in range(2, LONGEST_BLANK_RUN + 1) if self._has_piece(f"<|blank_{n}|>")), default=0)
        self._blank_runs = re.compile(f" {{2,{longest}}}") if longest else None
        self._piece_ids = range(num_image_tokens, num_image_tokens + size)
        # from_pretrained hands the two over as special tokens, which would be parsed from text: "[gMASK]" must not be.
        kwargs.pop("model_specific_special_tokens", None)
        super().__init__(
            bos_token=bos_token,
            eos_token=eos_token,
            mask_token=mask_token,
            pad_token=pad_token,
            unk_token=unk_token,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )
        own = {"gmask_token": gmask_token, "end_token": end_token, "num_image_tokens": num_image_tokens}
        self.init_kwargs |= own
        self._update_trie()

    @property
    def vocab_size(self) -> int:
        """Number of image tokens and pieces."""
        return self._piece_ids.stop

    @property
    def gmask_token_id(self) -> int:
        """Id of `[gMASK]`."""
        return self.convert_tokens_to_ids(self.gmask_token)

    @property
    def end_token_id(self) -> int:
        """Id of `</s>`."""
        return self.convert_tokens_to_ids(self.end_token)

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id; slow, nothing here needs it."""
        return {self._convert_id_to_token(i): i for i in range(self.vocab_size)} | self._added_tokens_encoder

    def __len__(self) -> int:
        return self.vocab_size + len(self._added_tokens_encoder)

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """The pieces of a text; special tokens in it are pieces of their own and swallow the blanks around them."""
        if kwargs.get("split_special_tokens", self.split_special_tokens):
            return self._tokenize(text)
        parts = self._special_pattern.split(text)
        pieces: list[str] = []
        for text_part, special in zip(parts[::2], [*parts[1::2], None], strict=True):
            pieces += self._tokenize(text_part)
            if special is not None:
                pieces.append(special)
        return pieces

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **kwargs: Any) -> list[int]:
        """As the base class has it; a plain text is read without naming its pieces, in a tenth of the time."""
        if not isinstance(text, str) or text_pair is not None or kwargs or self.split_special_tokens:
            return super().encode(text, text_pair, add_special_tokens, **kwargs)
        first, *rest = self._special_pattern.split(text)
        ids = self._ids_of(first)
        for special, text_part in zip(rest[::2], rest[1::2], strict=True):
            ids += [self.convert_tokens_to_ids(special), *self._ids_of(text_part)]
        return self.build_inputs_with_special_tokens(ids) if add_special_tokens else ids

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """A context closed by `[gMASK] <sop>`, and with a second list its answer closed by `<eop>`."""
        ids = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.eos_token_id]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces; control pieces and image tokens vanish."""
        return self._text_of([self._convert_token_to_id(token) for token in tokens])

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write the sentencepiece model into `save_directory`."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = Path(save_directory) / (prefix + VOCAB_FILES_NAMES["vocab_file"])
        path.write_bytes(self.sp_model.serialized_model_proto())
        return (str(path),)

    def _add_tokens(self, new_tokens: list[str] | list[AddedToken], special_tokens: bool = False) -> int:
        # Tokens that are pieces need no second entry; the base class would walk the whole vocabulary to find them.
        missing = [token for token in new_tokens if not self._has_piece(str(token))]
        return super()._add_tokens(missing, special_tokens=special_tokens) if missing else 0

    def _update_trie(self, unique_no_split_tokens: list[str] | None = None) -> None:
        tokens = {*self.all_special_tokens, *self._added_tokens_encoder, *(unique_no_split_tokens or [])}
        longest_first = sorted(tokens, key=len, reverse=True)
        self._special_pattern = re.compile(rf"\s*({'|'.join(map(re.escape, longest_first))})\s*")

    def _has_piece(self, piece: str) -> bool:
        index = self.sp_model.PieceToId(piece)
        return index != self._unknown_piece or piece == self.sp_model.IdToPiece(index)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return self.sp_model.EncodeAsPieces(self._with_written_blanks(text))

    def _ids_of(self, text: str) -> list[int]:
        written = self._with_written_blanks(text)
        ids = self.sp_model.EncodeAsIds(written)
        if self._unknown_piece in ids:
            # What is no piece may still have the name of one that stands in no text.
            return [self._convert_token_to_id(piece) for piece in self.sp_model.EncodeAsPieces(written)]
        return [index + self.num_image_tokens for index in ids] if self.num_image_tokens else ids

    def _with_written_blanks(self, text: str) -> str:
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        if self._blank_runs is not None:
            text = self._blank_runs.sub(lambda run: f"<|blank_{len(run[0])}|>", text)
        return text

    def _convert_token_to_id(self, token: str) -> int:
        image = IMAGE_TOKEN.fullmatch(token)
        if image and int(image[1]) < self.num_image_tokens:
            return int(image[1])
        return self.sp_model.PieceToId(token) + self.num_image_tokens

    def _convert_id_to_token(self, index: int) -> str:
        if index < self.num_image_tokens:
            return f"<image_{index}>"
        return self.sp_model.IdToPiece(index - self.num_image_tokens) if index in self._piece_ids else self.unk_token

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        text = self._text_of([index for index in ids if index not in skipped])
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def _text_of(self, ids: list[int]) -> str:
        # Control pieces have no text, nor have the rows that a model has beyond the pieces.
        text = self.sp_model.DecodeIds([index - self.num_image_tokens for index in ids if index in self._piece_ids])
        return WRITTEN_BLANKS.sub(_blank, text)


def _blank(written: re.Match[str]) -> str:
    """The white space that a piece like `<n>` or `<|blank_4|>` stands for."""
    if written[1] is None:
        return "\n" if written[0] == "<n>" else "\t"
    return " " * int(written[1]) if 2 <= int(written[1]) <= LONGEST_BLANK_RUN else written[0]
