"""Whatever is done to a file, reading it gives rows that can be kept, rejects that have words, or an error that has."""

import gzip
import io
import json
import random
import zipfile
from pathlib import Path

import openpyxl
import pytest

from glmstudio.data.example import Reject
from glmstudio.data.quality import is_storable
from glmstudio.data.reading import encodings
from glmstudio.errors import StudioError
from glmstudio.ui.language import LANGUAGES, error_text
from glmstudio.ui.row_words import place_text, reject_text
from tests.unit.file_cases import opened, put

ROWS = [{"instruction": "抽取", "input": f"第{number}句", "output": [{"名": number}]} for number in range(4)]
TURNS = [{"role": "user", "content": "一"}, {"role": "assistant", "content": "甲"}]
TASK = {"data": {"text": "甲乙"}, "annotations": [{"result": [{"type": "relation", "from_id": 1, "labels": ["在"]}]}]}
SPANS = {"text": "甲乙", "entities": [{"id": 1, "start_offset": 0, "end_offset": 1}], "label": [[0, 1, "人"]]}
TEXTS = [
    json.dumps([TASK, SPANS], ensure_ascii=False),
    json.dumps(ROWS, ensure_ascii=False),
    json.dumps({"data": ROWS}, ensure_ascii=False, indent=1),
    "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    json.dumps([{"messages": TURNS}] * 3, ensure_ascii=False),
    'instruction,input,output\n抽取,"一,二",三\n抽取,四,五\n',
]
PARTS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\r",
    b"//",
    b"/*",
    b"#",
    b"'",
    b"\xef\xbb\xbf",
    b"\0",
    b"\\",
    b"NaN",
    b":",
]


def seeds() -> list[bytes]:
    book, packed = io.BytesIO(), io.BytesIO()
    workbook = openpyxl.Workbook()
    workbook.active.append(["instruction", "output"])
    workbook.active.append(["a", "b"])
    workbook.save(book)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.jsonl", TEXTS[2])
    texts = [text.encode(encoding) for text in TEXTS for encoding in ("utf-8", "gb18030", "utf-16")]
    return [*texts * 3, book.getvalue(), packed.getvalue(), gzip.compress(TEXTS[0].encode())]


def damaged(content: bytes, dice: random.Random) -> bytes:
    place, kind = dice.randrange(len(content) + 1), dice.randrange(5)
    before, after = content[:place], content[place:]
    if kind == 0:
        return before + after[dice.choice([1, 2, 10]) :]
    if kind == 1:
        return before + bytes([dice.randrange(256)]) + after
    if kind == 2:
        return before
    return before + (dice.choice(PARTS) if kind == 3 else content[: dice.randrange(60)]) + after


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_a_damaged_file_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(encodings, "BLOCK", block)
    dice, contents = random.Random(block), seeds()
    for _ in range(300):
        content = dice.choice(contents)
        for _ in range(dice.choice([1, 1, 2, 5])):
            content = damaged(content, dice)
        path = put(tmp_path / "a", content)
        for row in what_comes_of(path):
            if isinstance(row, Reject):
                assert all(place_text(row, language) and reject_text(row, language) for language in LANGUAGES), content
            elif isinstance(row, StudioError):
                assert all(error_text(row, language) for language in LANGUAGES), content
            else:
                assert is_storable(row.instruction + row.input + row.target), content


def what_comes_of(path: Path) -> list:
    try:
        return list(opened(path))
    except StudioError as error:
        return [error]
