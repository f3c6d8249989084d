"""The encoding of a file is found by evidence, line by line; what is not sure is asked, and mojibake never comes in."""

import io
import json
from pathlib import Path

import pytest

from glmstudio.data.reading import encodings
from glmstudio.data.reading.encodings import BLOCK, Encoding, encoding_of, text_blocks
from tests.unit.file_cases import error_of, good, opened, put, read, rejects

HEADER = "instruction,input,output\n"


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "抽取,碼頭,イ", "UTF-8"),
        ("utf-8", "café,naïve,x", "UTF-8"),
        ("gb18030", "抽取地名,白塔在湖心岛上,白塔", "GB18030"),
        ("gb18030", "問題,這家餐廳的服務很差,負面", "GB18030"),
        ("big5", "抽取地名,白塔在湖心島上,白塔", "BIG5"),
        ("big5", "問候,你好嗎,好", "BIG5"),
        ("euc_kr", "이름 찾기,박영희는 시장에 갔다,박영희", "EUC-KR"),
        ("shift_jis", "挨拶,こんにちは、元気ですか,はい", "SHIFT-JIS"),
        ("cp1252", "Résumé,Le café était très bon – vraiment,“oui”", "Windows-1252"),
        ("cp1250", "Překlad,Příliš žluťoučký kůň,ano", "Windows-1250"),
        ("cp1251", "Тональность,Отличный ресторан,хорошо", "CP1251"),
        ("utf-16-le", "抽取,湖,a", "UTF-16-LE"),
        ("utf-8", "Цена,5 €,café", "UTF-8"),
        ("utf-8", "Цена,naïve,ß", "UTF-8"),
        ("gb18030", "问候,嗨,问候你好", "GB18030"),
        ("utf-16-be", "问题？,一一一一,门票", "UTF-16-BE"),
        ("utf-16-le", f"抽取,{'湖' * 900},a", "UTF-16-LE"),
        ("iso2022_jp", "挨拶,こんにちは,はい", "ISO2022_JP"),
        ("utf-16-be", "抽取,湖,a", "UTF-16-BE"),
        ("utf-16", "抽取,湖,a", "UTF-16"),
        ("utf-32", "抽取,湖,a", "UTF-32"),
    ],
)
def test_a_file_is_read_as_what_it_is(tmp_path: Path, encoding: str, text: str, shown: str) -> None:
    reading = opened(put(tmp_path / "a.csv", f"{HEADER}{text}\n", encoding))
    assert good(list(reading)) == [tuple(text.split(","))]
    assert reading.told.encodings == [shown]


@pytest.mark.parametrize("text", ["a,不,好", "a,안녕,네"])
def test_what_is_not_sure_is_asked_with_a_sample_of_each(tmp_path: Path, text: str) -> None:
    encoding = "gb18030" if "不" in text else "euc_kr"
    path = put(tmp_path / "a.csv", f"{HEADER}{text}\n", encoding)
    error = error_of(lambda: opened(path))
    assert (error.code, error.params["name"]) == ("encoding-unsure", "a.csv")
    assert text in error.params["samples"]
    assert good(read(path, encoding=encoding)) == [tuple(text.split(","))]
    assert error_of(lambda: opened(path, encoding="none")).code == "encoding-unknown"
    assert error_of(lambda: opened(path, encoding="base64")).code == "encoding-unknown"


def row(text: str) -> str:
    return json.dumps({"instruction": "情感", "input": text, "output": "正面"}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("block", [1000, 1 << 20])
@pytest.mark.parametrize("codecs", [("gb18030", "utf-8"), ("utf-8", "gb18030"), ("utf-8", "big5"), ("cp949", "utf-8")])
def test_joined_files_keep_the_encoding_of_each_line(tmp_path, monkeypatch, block: int, codecs: tuple) -> None:
    monkeypatch.setattr(encodings, "BLOCK", block)
    texts = ["第{}家店不好", "味道很好{}"]
    if "cp949" in codecs:
        texts[0] = "음식이 정말 맛있다 {}"
    first, then = ([row(text.format(number)) for number in range(30)] for text in texts)
    if set(codecs) & {"big5", "cp949"}:
        first, then = ([line.replace("情感", "味").replace("正面", "好") for line in lines] for lines in (first, then))
        first = [line.replace("味", "평", 1).replace("好", "네") if "cp949" in codecs else line for line in first]
    content = "".join(first).encode(codecs[0]) + "".join(then).encode(codecs[1])
    rows = read(put(tmp_path / "a.jsonl", content))
    assert [text for _, text, _ in good(rows)] == [json.loads(line)["input"] for line in first + then]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_broken_byte_costs_its_own_row_and_names_the_field(tmp_path: Path, encoding: str) -> None:
    lines = [row(f"第{number}句话").encode(encoding) for number in range(9)]
    lines[4] = lines[4].replace("句话".encode(encoding), "句".encode(encoding) + b"\xff")
    rows = read(put(tmp_path / "a.jsonl", b"".join(lines)))
    assert rejects(rows) == [(5, "field-broken")]
    assert rows[4].params == {"field": "input", "encoding": encoding.upper()}
    assert [text for _, text, _ in good(rows)] == [f"第{number}句话" for number in range(9) if number != 4]


@pytest.mark.parametrize("rest", [[], ["好"] * 200])
def test_a_byte_lost_in_a_file_of_one_line_is_its_row_s(tmp_path: Path, rest: list[str]) -> None:
    texts = ["味道很好", "服务太差", "环境一般", *rest]
    line = "[" + ", ".join(row(text).strip() for text in texts) + "]"
    rows = read(put(tmp_path / "a.json", line.encode().replace("环境".encode(), "环境".encode()[:-1])))
    assert [text for _, text, _ in good(rows)] == [text for text in texts if text != "环境一般"]
    assert [(bad.row, bad.code) for bad in rows if not hasattr(bad, "target")] == [(3, "field-broken")]


def test_a_few_nuls_make_no_utf_16(tmp_path: Path) -> None:
    reading = opened(put(tmp_path / "a.jsonl", row("一") + row("二").replace("正", "\0\0\0") + row("三\0") * 2))
    assert rejects(list(reading)) == [(2, "field-nul"), (3, "field-nul"), (4, "field-nul")]
    assert reading.told.encodings == ["UTF-8"]


def test_a_line_whose_structure_is_broken_is_not_readable(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.jsonl", row("一").encode() + b'{"instruction\xff: "a"}\n' + row("二").encode()))
    assert rejects(rows) == [(2, "line-broken")]


def test_a_mark_is_left_out_wherever_a_line_begins_with_it(tmp_path: Path) -> None:
    rows = read(put(tmp_path / "a.jsonl", "\ufeff" + row("一") + "\ufeff" + row("二\ufeff")))
    assert [text for _, text, _ in good(rows)] == ["一", "二\ufeff"]


def test_texts_are_whole_where_pieces_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "BLOCK", 50)
    text = "".join(row("汉字" * number) for number in range(30)) + "x" * 120 + "末"
    for codec, encoding in (("utf-8", Encoding()), ("gb18030", Encoding(other="gb18030")), ("utf-16", None)):
        content = text.encode(codec)
        encoding = encoding or encoding_of(lambda content=content: io.BytesIO(content), "a")
        assert "".join(text_blocks(io.BytesIO(content), encoding)) == text
    assert BLOCK == 1 << 20
