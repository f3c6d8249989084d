"""Small vocabulary files of the forms that ChatGLM2/3 and GLM-4 come with, trained here on the demo's text."""

import base64
import functools
import io
from collections import Counter
from itertools import pairwise
from pathlib import Path

from sentencepiece import SentencePieceTrainer
from tokenizers import Regex, pre_tokenizers

import glmstudio
from glmstudio.models.vocabularies.vocabulary_files import GLM_4_WORDS

# Texts that lose blanks, meet bytes, or look like special tokens to a careless reader.
TYPED = [
    "",
    " ",
    "  两个  blanks  ",
    "\n\n",
    "a\tb\r\nc",
    "[gMASK]sop eop</s><unk><s>",
    "<|user|>\n你好<|assistant|>",
    "sophomore eopatra",
    "<0x0A><0x41>",
    "鱻𠮷 ﬁ Ⅳ é\u0301",
    "😀👍🏽👨\u200d👩\u200d👧",
    "\x00\x7f\ufeff\u3000\u00a0",
    "0123456789" * 3,
    "I'm He'LL don't",
]


@functools.cache
def lines() -> tuple[str, ...]:
    """What the vocabularies are trained on."""
    folder = Path(glmstudio.__file__).parent / "embedded" / "text"
    files = (folder / name for name in ("demo.txt", "phrases.txt", "words.txt"))
    return tuple(line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


@functools.cache
def sentencepiece_file(size: int = 1800, **changes: object) -> bytes:
    """A byte-pair model of the kind that ChatGLM2 and ChatGLM3 have, of `size` pieces."""
    wish = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "character_coverage": 0.98,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    file = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(lines()), model_writer=file, vocab_size=size, **wish | changes)
    return file.getvalue()


def words_of(text: str) -> list[bytes]:
    """The parts of a text that GLM-4's merges stay inside."""
    split = pre_tokenizers.Split(Regex(GLM_4_WORDS), "isolated")
    return [word.encode() for word, _ in split.pre_tokenize_str(text)]


@functools.cache
def tiktoken_ranks(merges: int = 150) -> dict[bytes, int]:
    """Tokens and ranks of a byte-pair vocabulary: the 256 bytes, then the most frequent pair again and again."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    words = Counter(tuple(word[i : i + 1] for i in range(len(word))) for line in lines() for word in words_of(line))
    for _ in range(merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks[best[0] + best[1]] = len(ranks)
        words = Counter({tuple(merged(list(word), ranks)): count for word, count in words.items()})
    return ranks


def merged(parts: list[bytes], ranks: dict[bytes, int]) -> list[bytes]:
    """Byte-pair merging as tiktoken defines it: the pair of the lowest rank, leftmost first, until there is none."""
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not found:
            return parts
        _, at = min(found)
        parts = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]


def tiktoken_file(ranks: dict[bytes, int]) -> bytes:
    """One token in base64 and its rank a line."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
