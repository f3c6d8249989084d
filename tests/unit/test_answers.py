"""Answers as HTML: every text escaped, every view complete."""

import html
import json
import re

import pytest

from glmstudio.inference.compare import Answer
from glmstudio.ui import answers

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'single' ${x} `y`"
TEXT = '```json\n[{"作者": "<b>龙人</b>", "年": 2001, "完": true, "无": null, "空": []}]\n```'


def text_of(markup: str) -> str:
    """What a browser shows of it."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


@pytest.mark.parametrize("view", answers.VIEWS)
def test_no_view_lets_markup_through(view):
    for pane in answers.panes(HOSTILE, f"{HOSTILE} and more", view):
        assert "<script" not in pane
        assert text_of(pane).startswith(HOSTILE)


def test_the_difference_marks_what_only_one_side_says():
    left, right = answers.panes("作者是龙人，完。", "作者是唐家三少，完。", "difference")
    assert re.findall("<mark>(.*?)</mark>", left) == ["龙人"]
    assert re.findall("<mark>(.*?)</mark>", right) == ["唐家三少"]
    assert (text_of(left), text_of(right)) == ("作者是龙人，完。", "作者是唐家三少，完。")


def test_json_becomes_a_tree_with_every_leaf():
    tree = answers.tree_or_text(TEXT)
    assert "<b>" not in tree
    shown = text_of(tree)
    for word in ("作者", '"<b>龙人</b>"', "2001", "true", "null", "[]"):
        assert word in shown
    assert tree.count("<details") == 1
    assert answers.tree_or_text("作者是<龙人>") == "作者是&lt;龙人&gt;"


def test_a_tree_of_any_depth_is_shown_whole():
    deep = "[" * 200 + '"底"' + "]" * 200
    tree = answers.tree(json.loads(deep))
    assert "底" in text_of(tree)
    assert tree.count("<details") <= 60


def test_a_hint_is_no_part_of_the_text():
    pane = answers.pane("", 'say "hello" <first>')
    assert text_of(pane) == ""
    assert "say &quot;hello&quot; &lt;first&gt;" in pane


def test_the_head_tells_speed_end_form_and_verdict():
    answer = Answer("run-0001@best", TEXT, tokens=40, seconds=2.0, finish_reason="stop")
    shown = text_of(answers.head("<run>", answer, "en", target=f" {TEXT}\n"))
    for word in ("<run>", "2.0 s", "40 tokens · 20/s", "JSON ✓ 1 entry", "= expected ✓"):
        assert word in shown
    cut = Answer("__base__", '["a', tokens=2, seconds=1.0, finish_reason="length")
    shown = text_of(answers.head("Base", cut, "zh", target=TEXT))
    for word in ("达到词元上限", "JSON ✗ 不完整", "与期望不同"):
        assert word in shown


def test_the_head_judges_nothing_before_the_end():
    going = Answer("__base__", '["a', tokens=2, seconds=1.0)
    shown = text_of(answers.head("Base", going, "en", target='["a'))
    assert "answering…" in shown
    assert "JSON" not in shown
    assert "expected" not in shown
