"""Plain texts cut into pieces, each of which becomes a row: by line, by paragraph, or by length at the ends of
sentences. Nothing of a text is lost but the blanks around a piece. Knows no file but Word's.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import BinaryIO

from glmstudio.errors import StudioError

CUTS = ("line", "paragraph", "length")
CUT_LENGTH = 500
# Whether blank lines part the paragraphs of a text is seen by its beginning.
_LOOKED_AT = 2000
# A fence that nothing closes is none.
_LONGEST_FENCED = 500
_BLANKS = " \t\r\n\f\u3000\ufeff"
_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
_CLOSING = "”’」』）)】》\"'"
_SENTENCE = re.compile(rf".*?(?:[。！？!?；;…]+[{_CLOSING}]*|\.[{_CLOSING}]*(?=\s)|\n|$)\s*", re.DOTALL)
# A sentence that is too long is cut behind one of these, if it can be.
_PAUSES = "，,、：: "


def pieces(lines: Iterable[str], cut: str, length: int = CUT_LENGTH) -> Iterator[tuple[int, str]]:
    """(1-based line where it begins, the piece), without empty ones. `length` is the most characters of a piece that is
    cut by length."""
    if cut == "paragraph":
        found = _paragraphs(lines)
    elif cut == "length":
        found = _by_length(lines, length)
    else:
        found = enumerate(lines, start=1)
    for line, text in found:
        if text := text.strip(_BLANKS):
            yield line, text


def _paragraphs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Headings go with what follows them, and code between fences stays whole. In a text without blank lines each line
    is a paragraph, as in books that are one."""
    lines = iter(lines)
    first = list(islice(lines, _LOOKED_AT))
    texts = [line for line in first if line.strip(_BLANKS)]
    parted = len(texts) < "".join(first).strip(_BLANKS).count("\n") + 1
    begins, taken, fenced, headed = 1, [], False, False
    for number, line in enumerate(chain(first, lines), start=1):
        blank = not line.strip(_BLANKS)
        if taken and not fenced and not headed and (blank or not parted):
            yield begins, "".join(taken)
            taken = []
        if blank and not taken:
            continue
        if not taken:
            begins = number
        fenced = (fenced ^ (_FENCE.match(line) is not None)) and len(taken) < _LONGEST_FENCED
        headed = (blank and headed) or (not blank and not fenced and _HEADING.match(line) is not None)
        taken.append(line)
    yield begins, "".join(taken)


def _by_length(lines: Iterable[str], length: int) -> Iterator[tuple[int, str]]:
    begins, taken = 1, ""
    for number, line in enumerate(lines, start=1):
        for sentence in filter(None, _SENTENCE.findall(line)):
            for part in _parts(sentence, length):
                if taken and len((taken + part).strip(_BLANKS)) > length:
                    yield begins, taken
                    taken = ""
                if not taken.strip(_BLANKS):
                    begins = number
                taken += part
    yield begins, taken


def _parts(sentence: str, length: int) -> Iterator[str]:
    """The sentence in parts that are short enough."""
    while len(sentence.strip(_BLANKS)) > length:
        head = sentence[:length]
        end = max(head.rfind(pause) for pause in _PAUSES) + 1 or length
        yield sentence[:end]
        sentence = sentence[end:]
    yield sentence


def docx_lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The paragraphs of a Word document, each with a blank line behind it unless it is a heading; of its tables a line
    a row. Raises StudioError `document-broken`."""
    from docx import Document
    from docx.table import Table

    try:
        document = Document(file)
    except Exception as error:  # python-docx raises whatever its parts raise.
        raise StudioError("document-broken", name=name, reason=str(error)) from error
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            for row in item.rows:
                yield "\t".join(cell.text.replace("\n", " ") for cell in row.cells) + "\n"
            yield "\n"
        else:
            yield item.text + "\n"
            if not (item.style and item.style.style_id.startswith(("Heading", "Title"))):
                yield "\n"
