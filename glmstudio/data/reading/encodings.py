"""Bytes to text by evidence: what is valid UTF-8 stays UTF-8 line by line, other lines are decoded as what they are,
and where that is not sure a person is asked. Knows no rows.
"""

import codecs
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from glmstudio.errors import StudioError

# Bytes that cannot be decoded become a lone surrogate, by which their row is known and rejected.
BROKEN = "\udcff"
_MARK = "glmstudio-mark"
codecs.register_error(_MARK, lambda error: (BROKEN, error.end))

# Files are read in pieces of so many bytes, at most twice.
BLOCK = 1 << 20
_SAMPLE = 64 * 1024
# What part of a text is usual characters of its script: enough to be sure, enough to be asked about, and so far ahead
# of others that these need not be.
_SURE, _POSSIBLE, _AHEAD = 0.9, 0.5, 0.2
# All usual characters of Korean are usual ones of Chinese, too; half of those of Chinese are none of Korean.
_FEW_KOREAN = 12
_HANGUL = re.compile("[\uac00-\ud7a3]")
# Of so few characters, some may be unusual in the encoding that is expected.
_CHINESE, _FEW = "gb18030", 12
# Of those that make about as much sense, the first.
_SINGLE_BYTE = ["cp1252", "cp1250", "cp1251"]
_SAME_CHAOS = 0.05
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SHOWN = {"cp949": "EUC-KR", "cp932": "SHIFT-JIS", "cp1252": "Windows-1252", "cp1250": "Windows-1250"}
_LINE_MARKS = re.compile("^\ufeff+", re.MULTILINE)
# Japanese in seven bits: what parts the characters sets is an escape.
_ESCAPED = re.compile(rb"\x1b\$[@B]")
# A file with fewer NULs that is UTF-8 else is UTF-8 with NULs.
_FEW_NULS = 20
_PLAIN = re.compile("[\t\r\n -~\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef“”‘’…—·]")
_MOSTLY_PLAIN = 0.95
_ASCII = re.compile(r"[\x00-\x7f]+")
_SHOWN_TEXT = 40


@dataclass(frozen=True)
class Encoding:
    """`wide` is the codec of a file that has one for all of it (UTF-16, UTF-32, ISO-2022); else lines that are no
    UTF-8 are decoded as `other`, where that is known. `mixed` says that some lines are UTF-8 beyond doubt."""

    wide: str = ""
    other: str = ""
    mixed: bool = False

    @property
    def shown(self) -> str:
        """The name for people."""
        name = shown(self.wide or self.other or "utf-8")
        return f"{name}/UTF-8" if self.mixed and self.other not in _SINGLE_BYTE else name


@dataclass
class _Found:
    """What a look at a file has found: some of its lines that are no UTF-8, and whether others are it for certain."""

    sample: list[bytes] = field(default_factory=list)
    sampled: int = 0
    certain: bool = False

    def look(self, block: bytes) -> None:
        if block.isascii():
            return
        try:
            text = block.decode()
            self.certain = self.certain or _is_certain(text)
        except UnicodeDecodeError:
            for line in block.splitlines():
                self._look_at_line(line)

    def _look_at_line(self, line: bytes) -> None:
        try:
            text = line.decode()
            self.certain = self.certain or _is_certain(text)
        except UnicodeDecodeError:
            if _damaged(line):
                self.certain = True
            elif self.sampled < _SAMPLE:
                self.sample.append(line[: _SAMPLE - self.sampled])
                self.sampled += len(self.sample[-1])


def shown(codec: str) -> str:
    return _SHOWN.get(codec, codec.upper())


def encoding_of(open_file: Callable[[], BinaryIO], name: str, wish: str = "") -> Encoding:
    """The encoding of a file that `open_file` opens; the file is read whole. `wish` is what a person says it is.

    Raises StudioError `encoding-unknown` for a wish that Python does not know, `encoding-unsure` with a sample in each
    encoding that the file may have.
    """
    wish = _codec(wish) if wish else ""
    with open_file() as file:
        start = file.read(_SAMPLE)
        if wide := wish if wish.startswith(("utf-16", "utf-32")) else _wide(start):
            return Encoding(wide=wide)
        found = _Found()
        for block in _blocks(file, start):
            found.look(block)
    if wish and wish != "utf-8":
        return Encoding(other=wish, mixed=found.certain)
    if wish or not found.sample:
        return Encoding()
    sure, texts = _guess(found.sample)
    if found.certain and (sure in _SINGLE_BYTE or len(_ASCII.sub("", texts.get(sure, ""))) < _FEW):
        # The file is UTF-8, and lines of it are damaged.
        return Encoding()
    if sure:
        # Two bytes that are UTF-8 by chance are no word of a language that has one byte a letter.
        return Encoding(other=sure, mixed=found.certain or sure in _SINGLE_BYTE)
    samples = "; ".join(f"{shown(codec)}: {text[:_SHOWN_TEXT].strip()}" for codec, text in texts.items())
    raise StudioError("encoding-unsure", name=name, samples=samples or repr(found.sample[0][:_SHOWN_TEXT])[2:-1])


def text_blocks(file: BinaryIO, encoding: Encoding) -> Iterator[str]:
    """The text in pieces that end with a line where one ends within `BLOCK` bytes. Byte order marks are left out
    wherever a line begins with one; what cannot be decoded is `BROKEN`."""
    if encoding.wide:
        pieces = _wide_pieces(file, encoding.wide)
    else:
        pieces = (_decoded(block, encoding) for block in _blocks(file))
    for text in pieces:
        yield _LINE_MARKS.sub("", text) if "\ufeff" in text else text


def _codec(wish: str) -> str:
    try:
        codec = codecs.lookup(wish)
    except LookupError:
        raise StudioError("encoding-unknown", encoding=wish) from None
    if not codec._is_text_encoding:
        raise StudioError("encoding-unknown", encoding=wish)
    return {"utf-8-sig": "utf-8", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949"}.get(codec.name, codec.name)


def _wide(start: bytes) -> str:
    for mark, codec in _MARKS:
        if start.startswith(mark):
            return codec
    if _ESCAPED.search(start):
        return "iso2022_jp"
    if start.count(0) * _FEW_NULS < len(start) and _is_utf8(start):
        return ""
    # Braces, commas and line breaks are there in every file of rows, as a NUL and a byte.
    shares = {codec: _plain_share(start, codec) for codec in ("utf-16-le", "utf-16-be")} if 0 in start else {}
    best = max(shares, key=shares.__getitem__, default="")
    return best if best and shares[best] >= _MOSTLY_PLAIN else ""


def _is_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _plain_share(start: bytes, codec: str) -> float:
    """How much of a text so decoded is ASCII, or Chinese, Japanese or Korean."""
    text = start[: len(start) // 2 * 2].decode(codec, "replace")
    return len(_PLAIN.findall(text)) / max(len(text), 1)


def _blocks(file: BinaryIO, start: bytes = b"") -> Iterator[bytes]:
    """Pieces that end behind a line, or behind a byte that is a whole character in every encoding."""
    rest = start
    while True:
        block = file.read(BLOCK)
        whole, ended = rest + block, len(block) < BLOCK
        end = len(whole) if ended else whole.rfind(b"\n") + 1 or _safe_end(whole)
        rest = whole[end:]
        if end:
            yield whole[:end]
        if ended:
            return


def _safe_end(block: bytes) -> int:
    """Behind the last byte below 0x30: no encoding has one inside a character."""
    return max(block.rfind(char) for char in (b" ", b",", b'"', b"\t", b"\r")) + 1


def _wide_pieces(file: BinaryIO, codec: str) -> Iterator[str]:
    decoder, rest = codecs.getincrementaldecoder(codec)(errors=_MARK), ""
    while True:
        block = file.read(BLOCK)
        ended = len(block) < BLOCK
        text = rest + decoder.decode(block, final=ended)
        end = len(text) if ended else text.rfind("\n") + 1 or len(text)
        rest = text[end:]
        yield text[:end]
        if ended:
            return


def _decoded(block: bytes, encoding: Encoding) -> str:
    if not encoding.other or encoding.mixed:
        try:
            return block.decode()
        except UnicodeDecodeError:
            pass
    return "".join(_line(line, encoding) for line in block.splitlines(keepends=True))


def _line(line: bytes, encoding: Encoding) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        if not encoding.other or _damaged(line):
            return line.decode(errors=_MARK)
        return line.decode(encoding.other, _MARK)
    if encoding.other and not encoding.mixed and not text.isascii() and not _is_certain(text):
        return line.decode(encoding.other, _MARK)
    return text


def _is_certain(text: str) -> bool:
    """Whether valid UTF-8 is UTF-8 beyond doubt: pairs of other encodings pass for two-byte characters only."""
    return max(text, default="") >= "\u0800"


def _damaged(line: bytes) -> bool:
    """Whether a line that is no UTF-8 was UTF-8 once."""
    text = line.decode(errors=_MARK)
    broken = text.count(BROKEN)
    long = sum(char >= "\u0800" for char in text) - broken
    short = sum("\x80" <= char < "\u0800" for char in text)
    return long >= broken or short >= 4 * broken


def _guess(sample: list[bytes]) -> tuple[str, dict[str, str]]:
    """(the codec, or nothing where it is not sure; the text in each that it may be)."""
    texts = {codec: text for codec in _USUAL if (text := _text(sample, codec))}
    likely = _likely(texts)
    if not likely:
        return _western(b"\n".join(sample))
    return likely[0] if len(likely) == 1 else "", {codec: texts[codec] for codec in likely}


def _likely(texts: dict[str, str]) -> list[str]:
    """The codecs of those in which a text makes sense, the most usual one first."""
    shares = {codec: _usual_share(text, codec) for codec, text in texts.items()}
    lengths = {codec: len(_ASCII.sub("", text)) for codec, text in texts.items()}
    sure = [codec for codec, share in shares.items() if share >= _SURE]
    if "cp949" in sure and len(_HANGUL.findall(texts["cp949"])) >= _FEW_KOREAN:
        return ["cp949"]
    if sure and (_CHINESE in sure or shares.get(_CHINESE, 0) < _POSSIBLE or lengths[_CHINESE] >= _FEW):
        return sure
    least = _POSSIBLE if sure else max(_POSSIBLE, max(shares.values(), default=0) - _AHEAD)
    return [codec for codec, share in shares.items() if share >= least]


def _text(sample: list[bytes], codec: str) -> str:
    """The lines that can be decoded so; nothing where half of them cannot."""
    texts = []
    for line in sample:
        with contextlib.suppress(UnicodeDecodeError):
            texts.append(line.decode(codec))
    return "\n".join(texts) if len(texts) * 2 > len(sample) else ""


# For each codec, the ranges of the first byte of a pair that hold punctuation and what nearly every text is made of, in
# the national standard that it goes beyond.
_USUAL = {
    "gb18030": ("gb2312", ((0xA1, 0xA1), (0xA3, 0xA3), (0xB0, 0xD7))),
    "big5": ("big5", ((0xA1, 0xA1), (0xA4, 0xC6))),
    "cp949": ("euc_kr", ((0xA1, 0xA1), (0xA3, 0xA3), (0xB0, 0xC8))),
    "cp932": ("shift_jis", ((0x81, 0x83), (0x88, 0x97))),
}


def _usual_share(text: str, codec: str) -> float:
    """How much of what is not ASCII is usual in a text of that encoding."""
    standard, ranges = _USUAL[codec]
    characters = Counter(_ASCII.sub("", text))
    usual = sum(count for char, count in characters.items() if _is_usual(char, standard, ranges))
    share = usual / max(characters.total(), 1)
    # Nearly no Japanese sentence is without kana.
    kana = sum(count for char, count in characters.items() if "\u3040" <= char <= "\u30ff")
    return share if codec != "cp932" or kana * 10 > characters.total() else share / 2


def _is_usual(char: str, standard: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    pair = char.encode(standard, "ignore")
    return len(pair) == 2 and any(low <= pair[0] <= high for low, high in ranges)


def _western(sample: bytes) -> tuple[str, dict[str, str]]:
    """Letters one by one, of Europe."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=_SINGLE_BYTE))
    # One match may stand for several codecs that give the same text.
    texts = {min(match.could_be_from_charset, key=_SINGLE_BYTE.index): str(match) for match in matches}
    least = min((match.chaos for match in matches), default=0)
    likely = [codec for codec, match in zip(texts, matches, strict=True) if match.chaos <= least + _SAME_CHAOS]
    return min(likely, key=_SINGLE_BYTE.index, default=""), texts
