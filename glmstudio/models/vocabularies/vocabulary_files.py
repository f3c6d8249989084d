"""Vocabulary files of ChatGLM2/3 (sentencepiece) and GLM-4 (tiktoken) as backends of the `tokenizers` library.

Knows files and byte-pair merging; no family, no prompt. Every error is a ValueError that says what is in the file.
"""

import base64
import re
import struct
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

BLANK = "\u2581"
# The kinds of pieces in sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
NO_CHARACTER = re.compile("[\udc80-\udcff]")
GLM_4_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


@dataclass(frozen=True)
class Piece:
    """One entry of a sentencepiece vocabulary; a byte-pair merge with a higher `score` comes first."""

    text: str
    score: float
    kind: int


def sentencepiece_backend(data: bytes, extra: tuple[str, ...]) -> Tokenizer:
    """A backend that cuts text as the byte-pair model `data` does, with the tokens `extra` behind its pieces.

    No merge leads to `extra` or to control pieces, so no text has them; decoding drops the control pieces.
    Raises ValueError for a file of another kind: unigram, with a normalization, without bytes for unknown characters.
    """
    pieces = sentencepiece_pieces(data)
    ids = {piece.text: index for index, piece in enumerate(pieces)}
    if len(ids) != len(pieces) or not ids.keys().isdisjoint(extra):
        raise ValueError("a piece is there twice")
    normal = {piece.text: piece.score for piece in pieces if piece.kind == NORMAL}
    # Pieces of equal score would merge from left to right whatever they are; here the earlier piece goes first.
    ranked = sorted((text for text in normal if len(text) > 1), key=lambda text: (-normal[text], ids[text]))
    merges = [pair for text in ranked for pair in _pairs(text, normal)]
    vocabulary = ids | {token: len(pieces) + index for index, token in enumerate(extra)}
    unknown = next(piece.text for piece in pieces if piece.kind == UNKNOWN)
    backend = Tokenizer(BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    dropped = [piece.text for piece in pieces if piece.kind in (UNKNOWN, CONTROL)]
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(f"^(?:{'|'.join(map(_escaped, dropped))})$"), ""),
            decoders.Replace(BLANK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


def text_of_pieces(pieces: Iterable[str]) -> str:
    """What sentencepiece makes of pieces: the blank that leads every text goes, and each byte that is no part of a
    character becomes one U+FFFD, where the backend's decoder gives up the characters around it too."""
    data = b"".join(
        bytes([int(piece[3:5], 16)]) if BYTE_PIECE.fullmatch(piece) else piece.replace(BLANK, " ").encode()
        for piece in pieces
    )
    return NO_CHARACTER.sub("\ufffd", data.decode(errors="surrogateescape")).removeprefix(" ")


def tiktoken_backend(data: bytes, extra: dict[str, int]) -> Tokenizer:
    """A backend of GLM-4's file: one base64 token and its rank a line; `extra` tokens have ids of their own.

    Raises ValueError where a line is something else.
    """
    ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    if not ranks:
        raise ValueError("no tokens")
    letter_of = _byte_letters()
    merges = [
        pair
        for token in sorted(ranks, key=ranks.__getitem__)
        for pair in sorted(_pairs(token, ranks), key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    ]
    written = {token: "".join(letter_of[byte] for byte in token) for token in ranks}
    vocabulary = {written[token]: rank for token, rank in ranks.items()}
    pairs = [(written[left], written[right]) for left, right in merges]
    backend = Tokenizer(BPE(vocabulary | extra, pairs, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(GLM_4_WORDS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def sentencepiece_pieces(data: bytes) -> list[Piece]:
    """The pieces of a serialized sentencepiece ModelProto in the order of their ids.

    Field numbers are those of sentencepiece_model.proto. Raises ValueError for what `sentencepiece_backend` cannot do.
    """
    pieces: list[Piece] = []
    trainer: dict[int, object] = {}
    normalizer: dict[int, object] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            pieces.append(Piece(piece[1].decode(), piece.get(2, 0.0), piece.get(3, NORMAL)))
        elif number in (2, 3):
            (trainer if number == 2 else normalizer).update(_fields(value))
    byte_pairs, byte_fallback = trainer.get(3, 1) == 2, trainer.get(35, 0) and not trainer.get(24, 0)
    plain_text = not normalizer.get(2) and normalizer.get(3, 1) and not normalizer.get(4, 1) and normalizer.get(5, 1)
    kinds = {piece.kind for piece in pieces}
    known_kinds = {NORMAL, UNKNOWN} <= kinds <= {NORMAL, UNKNOWN, CONTROL, BYTE}
    if not (byte_pairs and byte_fallback and plain_text and known_kinds):
        raise ValueError("not a sentencepiece byte-pair model of the kind that ChatGLM2 and ChatGLM3 have")
    return pieces


def _fields(data: bytes) -> Iterator[tuple[int, object]]:
    """(field number, value) of one protobuf message: int, float, or the bytes of a text or of a message."""
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            if tag & 7 == 0:
                value, at = _varint(data, at)
            elif tag & 7 == 2:
                length, at = _varint(data, at)
                value, at = data[at : at + length], at + length
            elif tag & 7 == 5:
                value, at = struct.unpack_from("<f", data, at)[0], at + 4
            else:
                raise ValueError("not a sentencepiece model")
            yield tag >> 3, value
        if at > len(data):
            raise ValueError("the file is cut short")
    except (IndexError, struct.error) as error:
        raise ValueError("the file is cut short") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _pairs(token: str | bytes, known: Container) -> list[tuple]:
    """The ways to put `token` together from two known parts."""
    halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    return [(left, right) for left, right in halves if left in known and right in known]


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\[](){}<>|.^$*+?/" else letter for letter in text)


def _byte_letters() -> dict[int, str]:
    """Byte -> the letter that byte-level pieces write it with: itself where it can be seen, else one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + index) for index, byte in enumerate(hidden)}
