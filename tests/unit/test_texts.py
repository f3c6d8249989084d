"""Plain texts and documents become rows, piece by piece, and nothing of them is lost."""

import zipfile
from pathlib import Path

import docx
import pytest

from glmstudio.data.example import Reject
from glmstudio.data.reading.texts import CUTS, pieces
from tests.unit.file_cases import error_of, good, opened, put, read

TEXT = "# 一章\n\n第一段。很长！\n接着写。\n\n```\na\n\nb\n```\n\n　　第二段\n"


def cut(text: str, how: str, length: int = 500) -> list[tuple[int, str]]:
    return list(pieces(text.splitlines(keepends=True), how, length))


def test_a_text_is_cut_by_line_and_by_paragraph() -> None:
    lines = ["# 一章", "第一段。很长！", "接着写。", "```", "a", "b", "```", "第二段"]
    assert [text for _, text in cut(TEXT, "line")] == lines
    assert cut(TEXT, "paragraph") == [
        (1, "# 一章\n\n第一段。很长！\n接着写。"),
        (6, "```\na\n\nb\n```"),
        (12, "第二段"),
    ]
    assert cut("　　一段。\n　　二段。\n三段。", "paragraph") == [(1, "一段。"), (2, "二段。"), (3, "三段。")]
    assert cut("\n\n a\n\n\n```\nb\n\nc", "paragraph") == [(3, "a"), (6, "```\nb\n\nc")]
    assert len(cut("```\n" + "a\n\n" * 1000, "paragraph")) > 500


def test_a_text_is_cut_by_length_at_the_ends_of_sentences() -> None:
    assert cut("他说：“好。”然后走了！真的？是，的确如此，没有别的说法了\n", "length", 12) == [
        (1, "他说：“好。”然后走了！"),
        (1, "真的？是，的确如此，"),
        (1, "没有别的说法了"),
    ]
    assert cut("It was 3.5 km. Then\nhome. So\n", "length", 15) == [(1, "It was 3.5 km."), (1, "Then\nhome. So")]
    assert cut("短。\n\n\n也短。\n长" + "x" * 30, "length", 12)[0] == (1, "短。\n\n\n也短。")


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("length", [1, 7, 40])
def test_nothing_of_a_text_is_lost(how: str, length: int) -> None:
    text = (TEXT + "没有标点的一长句话" * 9 + "，然后。") * 3
    found = cut(text, how, length)
    assert "".join("".join(piece for _, piece in found).split()) == "".join(text.split())
    assert how != "length" or max(len(piece) for _, piece in found) <= length
    places = [line for line, _ in found]
    assert places == sorted(places)


def test_texts_and_documents_come_in_as_open_rows_with_one_instruction(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("标题")
    document.add_paragraph("第一段")
    document.add_paragraph("")
    document.add_paragraph("第二段")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "甲", "乙"
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    document.save(folder / "a.docx")
    put(folder / "b.txt", "湖边有一座白塔。\n\n塔下有人。", "gb18030")
    put(folder / "sub" / "c.md", "# 头\n话")
    put(folder / "d.txt", "")
    put(folder / "e.jsonl", '{"instruction": "no text"}')
    options = {"cut": "paragraph", "instruction": "抽取"}
    expected = ["标题\n第一段", "第二段", "甲\t乙", "湖边有一座白塔。", "塔下有人。", "# 头\n话"]
    rows = read(folder, **options)
    assert good(rows) == [("抽取", text, "") for text in expected]
    assert [row.status for row in rows if not isinstance(row, Reject)] == ["draft"] * len(expected)
    assert [(row.file, row.params["error"].code) for row in rows if isinstance(row, Reject)] == [
        ("d.txt", "file-empty")
    ]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    assert sorted(good(read(tmp_path / "a.zip", **options))) == sorted(good(rows))
    assert good(read(folder / "a.docx", **options)) == good(rows)[:3]
    for path in (folder / "a.docx", folder / "b.txt"):
        assert error_of(lambda path=path: opened(path)).code == "text-uncut"
    broken = put(tmp_path / "b.docx", (folder / "a.docx").read_bytes()[:-30])
    assert error_of(lambda: opened(broken, **options)).code == "unpacking-failed"
