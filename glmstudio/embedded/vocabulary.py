"""Builds ice_text.model: a lossless sentencepiece vocabulary of single Chinese characters and short ASCII pieces.

It is composed, not trained: a unigram model in which every piece of the same length costs the same, so that a text is
always cut into the fewest pieces. Knows no model and no task.
"""

import re
import struct
from pathlib import Path

from glmstudio.embedded import pools
from glmstudio.embedded.names import LEVEL_1, LEVEL_2

BLANK_RUNS = range(2, 9)
SPECIAL = ("<unk>", "[gMASK]", "[MASK]", "<pad>", "<n>", "\u2581", "<sop>", "<eop>", "<|tab|>")


def pieces() -> list[tuple[str, str]]:
    """(piece, kind) in the order of ids; kind is unknown, control, user, byte or normal. About 7,700 rows."""
    rows = [("<unk>", "unknown")]
    rows += [(p, "control" if p in ("[gMASK]", "[MASK]", "<pad>", "<sop>", "<eop>") else "user") for p in SPECIAL[1:]]
    rows[SPECIAL.index("\u2581")] = ("\u2581", "normal")
    rows += [(f"<|blank_{n}|>", "user") for n in BLANK_RUNS]
    rows += [(f"<0x{n:02X}>", "byte") for n in range(256)]
    normal = [chr(code) for code in range(33, 127)]
    symbols, letters = ("".join(pools.sections("vocabulary")[part]) for part in ("symbols", "letters"))
    normal += [*symbols, "\u3000", "\u00a0", *letters, *LEVEL_1, *LEVEL_2]
    # No piece begins with a blank and a letter: a word copied from a text into JSON keeps its ids.
    normal += [*pools.sections("vocabulary")["fragments"], *pools.words("vocabulary", "english")]
    rows += [(p, "normal") for p in dict.fromkeys(normal) if p not in SPECIAL]
    return rows


def _field(number: int, value) -> bytes:
    """One protobuf field: int and bool as varint, float as 32 bits, str and bytes with their length."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def build_model() -> bytes:
    """The serialized sentencepiece ModelProto, the same bytes on every machine.

    Field numbers are those of sentencepiece_model.proto; written by hand because protobuf is no requirement.
    """
    kind_of = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "byte": 6}
    body = b""
    rows = pieces()
    for piece, kind in rows:
        score = -10.0 - 0.001 * len(piece) if kind == "normal" else 0.0
        body += _field(1, _field(1, piece) + _field(2, score) + _field(3, kind_of[kind]))
    unigram, byte_fallback = _field(3, 1) + _field(4, len(rows)), _field(35, True)
    body += _field(2, unigram + byte_fallback + _field(40, 0) + _field(45, "<unk>") + _field(48, "<pad>"))
    no_dummy_prefix, keep_blanks, escape = _field(3, False), _field(4, False), _field(5, True)
    return body + _field(3, _field(1, "identity") + no_dummy_prefix + keep_blanks + escape)


class TextCodec:
    """Text ↔ ids in the conventions of ChatGLM-6B: a newline is <n>, a tab <|tab|>, 2-8 blanks are <|blank_k|>."""

    def __init__(self, model: bytes | Path):
        from sentencepiece import SentencePieceProcessor

        self.processor = SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model if isinstance(model, bytes) else model.read_bytes())
        self.gmask, self.sop, self.eop, self.pad = map(self.processor.PieceToId, ("[gMASK]", "<sop>", "<eop>", "<pad>"))

    def encode(self, text: str) -> list[int]:
        """Ids of text, without special tokens."""
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        longest = BLANK_RUNS[-1]
        text = re.sub(f" {{2,{longest}}}", lambda run: f"<|blank_{len(run[0])}|>", text)
        return self.processor.EncodeAsIds(text)

    def decode(self, ids: list[int]) -> str:
        """The text of ids; special ids vanish."""
        text = self.processor.DecodeIds(ids).replace("<n>", "\n").replace("<|tab|>", "\t")
        return re.sub(r"<\|blank_(\d)\|>", lambda run: " " * int(run[1]), text)
