"""What the header, the list and the form say, as HTML: states, numbers, previews, pages, and nothing unescaped."""

import dataclasses
import json
import re
from types import SimpleNamespace

import pytest

from glmstudio.data.example import Example, Reject
from glmstudio.data.row_reader import Query
from glmstudio.data.row_starts import RowStart, TextStart
from glmstudio.errors import StudioError
from glmstudio.models.prompts.encoding import MOST_COUNTED, TokenCount
from glmstudio.quantities import clock
from glmstudio.studio.base_slot import BaseStatus
from glmstudio.ui import gauges
from glmstudio.ui.annotate_drafts import Draft, read_drafts
from glmstudio.ui.annotate_files import rejects_html
from glmstudio.ui.annotate_list import pager_html, preview, table_html
from glmstudio.ui.annotate_trail import Step, is_unsaved, with_revision, with_step
from glmstudio.ui.annotate_words import conflict_html, heading_html
from glmstudio.ui.header import Training, header_html

EVIL = "<img src=x onerror=alert(1)>"


def start_of(row: Example) -> RowStart:
    texts = map(TextStart.of, (row.instruction, row.input, row.target))
    return RowStart(row.id, row.split, row.status, row.source, row.dataset, *texts)


def counted(text: str, most: int = MOST_COUNTED) -> TokenCount:
    """A token a character."""
    return TokenCount(len(text[:most]), len(text) > most)


def seen(html: str) -> str:
    """The text that a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def test_the_header_says_what_is_resident_and_what_trains():
    status = BaseStatus("ready", "embedded", "chatglm", "cpu", "bfloat16", 430 * 2**20, 12_000_000)
    run = SimpleNamespace(number=3, step=0, total=400, status="running")
    progress = SimpleNamespace(step=120, total=400, seconds_left=70.0)
    html = header_html(status, Training(run, progress), "en")
    assert "demonstration" in seen(html)
    assert "● ready CPU bf16 430 MB Run 3: 120/400 01:10 left" in seen(html)
    assert 'style="width:30.0%"' in html
    run.status = "paused"
    assert "Run 3: 120/400 paused" in seen(header_html(status, Training(run, progress), "en"))
    assert "就绪" in header_html(status, None, "zh")
    small = dataclasses.replace(status, dtype="float32", quantization="4bit")
    assert "CPU fp32 · 4bit 430 MB" in seen(header_html(small, None, "en"))
    assert "Run" not in seen(header_html(status, None, "en"))


def test_a_failed_base_says_why():
    error = StudioError("base-not-a-model", folder="/models/x")
    text = seen(header_html(BaseStatus("failed", "/models/x", error=error), None, "en"))
    assert "Base: x" in text
    assert "config.json is not there" in text


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (69.6, "01:10"), (7500, "2:05:00")])
def test_durations(seconds, text):
    assert clock(seconds) == text


def test_a_preview_shows_the_start_and_a_match_behind_it():
    long = "开" * 200 + "终点 在此" + "尾" * 200
    assert preview(TextStart(long), "") == "开" * 90 + "…"
    shown = preview(TextStart(long), "点 在")
    assert shown.startswith("开" * 24 + " … ")
    assert "终<mark>点 在</mark>此" in shown
    assert preview(TextStart("AbC"), "bc") == "A<mark>bC</mark>"
    assert preview(TextStart("a\n\n b"), "") == "a b"
    assert preview(TextStart("a", more=True), "") == "a…"
    beyond = preview(TextStart(long, more=True, match="很远的<地方>"), "远的<")
    assert beyond == "开" * 24 + "…很<mark>远的&lt;</mark>地方&gt;"


def test_nothing_that_a_person_wrote_becomes_html():
    row = Example(EVIL, EVIL, EVIL, annotator=EVIL, id=1, revision=1, updated_at="2024-01-02T03:04:05.000+00:00")
    for html in (
        preview(TextStart(EVIL, match=EVIL), "img"),
        preview(TextStart("", match=EVIL), "img"),
        table_html([start_of(row)], Query(), None, counted, "zh"),
        heading_html(row, "zh"),
        conflict_html(Example(""), row, "zh"),
        rejects_html([Reject(3, "field-broken", {"field": EVIL, "encoding": "UTF-8"}, file=EVIL)], "zh"),
    ):
        assert "<img" not in html


def test_the_marks_of_a_row():
    rows = [
        Example("i", "a", "b", id=1),
        Example("i", "a", "", id=2, status="draft"),
        Example("i", "a", "[1,", id=3, source="feedback", split="dev"),
        Example("i", "a", "b", id=4, status="discarded"),
    ]
    html = table_html([start_of(row) for row in rows], Query(), 2, counted, "en")
    assert [seen(row) for row in html.split("</tr>")[:4]] == [
        "● 1 a b 3",
        "○ 2 a 2",
        "⚠ 3 feedback dev a [1, 5",
        "✕ 4 a b 3",
    ]
    assert html.count("aria-selected") == 1
    assert "c" not in seen(table_html([start_of(rows[0])], Query(), None, lambda *_: None, "en"))


def test_a_row_that_holds_a_book_is_told_by_its_beginning():
    """Whether JSON of a book breaks, the check says."""
    given = []
    row = start_of(Example("i" * 2_000, "a" * 30_000, "[1," * 30_000, id=1))
    html = table_html([row], Query(), None, lambda text, most: given.append(most) or counted(text, most), "en")
    assert given == [8_000] * 3
    assert len(html) < 2_000
    assert ("18k+" in seen(html), "⚠" in html) == (True, False)


def test_an_empty_list_says_what_to_do():
    assert "Import" in seen(table_html([], Query(), None, counted, "en"))
    assert "data-clear" in table_html([], Query(search="x"), None, counted, "en")


@pytest.mark.parametrize(
    ("number", "total", "text"),
    [
        (0, 0, "0 rows"),
        (0, 20, "20 rows"),
        (0, 21, "21 rows ‹ 1 2 ›"),
        (5, 312, "312 rows ‹ 1 … 5 6 7 … 16 ›"),
        (15, 312, "312 rows ‹ 1 … 15 16 ›"),
    ],
)
def test_the_pager(number, total, text):
    assert seen(pager_html(number, total, "en")) == text


def test_the_gauges_count_against_the_lengths_of_training():
    assert seen(gauges.target_gauge("x" * 301, counted, "en")) == "301 / 300 tokens"
    assert "glm-warn" in gauges.target_gauge("x" * 301, counted, "en")
    assert "glm-warn" not in gauges.target_gauge("x" * 300, counted, "en")
    assert seen(gauges.input_gauge("a", "b", lambda text: None, "en")) == "– tokens · prompt – / 400"
    assert seen(gauges.instruction_gauge("a", counted, "en")) == "1 token"


def test_the_gauges_of_a_book_say_at_least_how_much():
    book = "x" * 300_000
    assert seen(gauges.instruction_gauge(book, counted, "en")) == "over 20,000 tokens"
    assert seen(gauges.input_gauge("", book, counted, "zh")) == "超过 20,000 词元 · 提示 超过 20,000 / 400"
    assert "glm-warn" in gauges.input_gauge("", book, counted, "en")
    assert seen(gauges.target_gauge(book, counted, "en")) == "over 20,000 / 300 tokens"
    assert seen(gauges.target_gauge(f"[{book}", counted, "en")).startswith("JSON: longer than 200,000 characters")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("plain prose", ""),
        ('[{"subject": 1, "predicate": 2, "object": 3}]', "JSON ✓ 1 triple"),
        ('["a", "b"]', "JSON ✓ 2 entries"),
        ('{"a": 1}', "JSON ✓ 1 key"),
        ('{"a": }', "⚠ JSON breaks at line 1, column 7."),
    ],
)
def test_the_target_says_whether_it_is_json(target, text):
    assert seen(gauges.target_gauge(target, lambda _: None, "en")).removesuffix("– / 300 tokens").strip() == text


def test_many_rejects_are_cut_with_their_number():
    rejects = [Reject(line, "prompt-empty") for line in range(1, 251)]
    text = seen(rejects_html(rejects, "en"))
    assert "250 lines" in text
    assert "Line 100" in text
    assert "Line 101" not in text
    assert "and 150 more" in text


def test_a_new_instruction_alone_is_not_worth_keeping():
    stored = Example("i", "a", "b", id=1, revision=2)
    assert not is_unsaved(Example("i", "", " "), None)
    assert is_unsaved(Example("i", "a", ""), None)
    assert not is_unsaved(stored, stored)
    assert is_unsaved(dataclasses.replace(stored, instruction="other"), stored)
    assert is_unsaved(dataclasses.replace(stored, split="dev"), stored)


def test_drafts_of_the_browser_are_read_back_and_rubbish_is_left_alone():
    item = {"key": "7", "id": 7, "revision": 3, "fields": ["i", "a", None, "d", "dev", "draft"]}
    assert read_drafts(json.dumps([item])) == [Draft("7", Example("i", "a", "", "d", "dev", "draft", id=7, revision=3))]
    wrong = [
        {**item, "fields": ["i"]},
        {**item, "id": "x"},
        {"key": "7"},
        5,
        {**item, "fields": [*"iatd", "no", "done"]},
    ]
    for rubbish in (None, "", "{", '"text"', *(json.dumps([one]) for one in wrong)):
        assert read_drafts(rubbish) == []


def test_earlier_saves_of_a_row_follow_its_revision():
    row, other = Example("i", id=1, revision=1), Example("i", id=2, revision=1)
    trail = with_step(with_step(with_step((), "added", row), "changed", other), "left", row)
    after = with_revision(trail, Example("i", id=1, revision=5))
    assert [step.row.revision for step in after] == [5, 1, 1]
    assert after[1] == Step("changed", other)


def test_the_trail_forgets_its_oldest_steps():
    trail = ()
    for number in range(150):
        trail = with_step(trail, "added", Example("i", id=number))
    assert (len(trail), trail[-1].row.id) == (100, 149)
