"""Evaluations in the background: progress, files, stopping, failing, and what the page says of them."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from glmstudio.data import snapshot
from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.evaluation.scoreboard import Scoreboard
from glmstudio.evaluation.scores import score
from glmstudio.models.adapters.adapter_ref import AdapterRef
from glmstudio.settings import GenerationSettings
from glmstudio.studio.jobs import BackgroundJob, Jobs
from glmstudio.studio.scoreboards import Scoreboards
from glmstudio.ui.error_boundary import problem_html
from glmstudio.ui.evaluate_words import boards_html, progress_html, row_html, rows_html, rows_of, scores_html
from tests.damages import unreadable
from tests.unit.test_jobs import ended

REF = AdapterRef("run-0001", "best")
ASK = GenerationSettings()
BY = {
    "base": {"source": "tiny", "dtype": "float32"}, "prompt_style": "chat", "max_source_length": 60,
    "digest": "0123456789abcdef", "step": 7,
}  # fmt: skip
ROWS = [Example("i", f"input {number}", f'["{number}"]') for number in range(4)]
ANSWERS = {"base": ["?", '["1"]', "?", '["3"]'], "tuned": ['["0"]', '["1"]', "[", '["<b>"]']}


def scores(count: int = 4) -> dict:
    totals = {
        name: score([(row.target, answer) for row, answer in zip(ROWS[:count], answers[:count], strict=True)])
        | {"finish_reasons": {"stop": count}}
        for name, answers in ANSWERS.items()
    }
    rows = [
        {"instruction": row.instruction, "input": row.input, "target": row.target, "base": base, "tuned": tuned}
        for row, base, tuned in zip(ROWS[:count], ANSWERS["base"][:count], ANSWERS["tuned"][:count], strict=True)
    ]
    return totals | {"rows": rows, "total": 4, "cancelled": count < 4, "answered_by": BY}


def evaluate(examples, ref, settings, on_progress, should_stop):
    for done in range(1, 5):
        on_progress(done, len(examples))
    return scores()


@pytest.fixture
def jobs():
    return Jobs()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run-0001").mkdir()
    return tmp_path


def test_each_evaluation_is_a_file_of_its_own_with_what_it_was_made_of(folder, jobs):
    boards = Scoreboards(folder, evaluate, jobs)
    drawn = replace(ASK, temperature=0.7)
    for dataset, settings in (("城市 一", ASK), ("城市 一", drawn), ("a/../b", ASK)):
        name = boards.start(dataset, ROWS, REF, settings)
        now = ended(jobs, "evaluation")
        assert (now.state, now.subject, now.done, now.total) == (
            "done", {"adapter": REF.name, "dataset": dataset}, 4, 4
        )  # fmt: skip
    found = Scoreboards(folder, evaluate, jobs).all()
    assert [(board.dataset, board.settings["temperature"]) for board in found] == [
        ("a/../b", 0.0), ("城市 一", 0.7), ("城市 一", 0.0)
    ]  # fmt: skip
    assert found[0].name == name
    assert found[0].scores == scores()
    assert (found[0].digest, found[0].step, found[0].partial, found[0].counted) == (BY["digest"], 7, False, (4, 4))
    assert {board.snapshot_id for board in found} == {snapshot.identity([], ROWS)}
    assert len(list((folder / "run-0001" / "scores").iterdir())) == 3


def old(folder, **changes) -> Path:
    """A file as it was written before evaluations said who answered."""
    path = folder / "run-0001" / "scores" / "best-demo.json"
    path.parent.mkdir(exist_ok=True)
    before = {name: value for name, value in scores().items() if name != "answered_by"}
    values = {"run_id": "run-0001", "checkpoint": "best", "dataset": "demo", "created_at": 5.0, "scores": before}
    path.write_text(json.dumps(values | changes), encoding="utf-8")
    return path


def test_a_file_of_an_older_version_still_reads(folder, jobs):
    old(folder)
    (board,) = Scoreboards(folder, evaluate, jobs).all()
    assert (board.name, board.dataset, board.digest, board.settings) == ("run-0001/best-demo", "demo", "", {})
    assert "≠" not in boards_html([board], board, {}, "zh")
    assert "≠" in boards_html([board, replace(board, file="x", snapshot_id="abc")], board, {}, "zh")
    assert "older version" in scores_html(board, "en", has_runs=True)
    assert "<td>–</td>" in boards_html([board], board, {}, "zh")


def test_an_export_gets_the_scores_of_the_content_that_it_is(folder, jobs):
    answers = iter([scores(), scores(2), scores() | {"answered_by": BY | {"digest": "other"}}])
    boards = Scoreboards(folder, lambda *_: next(answers), jobs)
    for _ in range(3):
        boards.start("d", ROWS, REF, ASK)
        ended(jobs, "evaluation")
    whole = boards.of(replace(REF, digest=BY["digest"]), 0.0)
    assert (whole.digest, whole.partial) == (BY["digest"], False)
    assert boards.of(replace(REF, digest="new"), 0.0) is None
    assert boards.of(replace(REF, checkpoint="last", digest="other"), 0.0) is None
    old(folder)
    assert boards.of(replace(REF, digest="new"), 4.0).file == "best-demo"
    assert boards.of(replace(REF, digest="new"), 6.0) is None


def test_one_at_a_time_and_a_stop_keeps_what_was_answered(folder, jobs):
    begun = threading.Event()

    def slow(examples, ref, settings, on_progress, should_stop):
        on_progress(2, 4)
        begun.set()
        while not should_stop():
            begun.wait(0.01)
        return scores(2)

    boards = Scoreboards(folder, slow, jobs)
    boards.start("d", ROWS, REF, ASK)
    begun.wait(600)
    with pytest.raises(StudioError, match="evaluation-active"):
        boards.start("d", ROWS, REF, ASK)
    jobs.stop(jobs.now("evaluation").id)
    now = ended(jobs, "evaluation")
    assert (now.state, progress_html(now, "en")) == ("stopped", "")
    (board,) = boards.all()
    assert (board.partial, board.counted) == (True, (2, 4))
    assert "only 2 of 4 rows" in scores_html(board, "en", has_runs=True)
    listed = boards_html([board], None, {}, "zh")
    assert "<details><summary>提前停止的评测（1）" in listed
    assert "<td>2 / 4</td>" in listed
    assert "<details open>" in boards_html([board], board, {}, "zh")


@pytest.mark.parametrize("error", [StudioError("answer-not-finite", adapter="x"), ValueError("broken")])
def test_a_failure_is_told_and_leaves_no_file(folder, jobs, error):
    def failing(*_):
        raise error

    boards = Scoreboards(folder, failing, jobs)
    boards.start("d", ROWS, REF, ASK)
    now = ended(jobs, "evaluation")
    assert now.state == "failed"
    assert progress_html(now, "en").startswith('<p class="glm-bad">')
    assert boards.all() == []


DAMAGES = {
    "no JSON": "{", "empty": "", "another object": '{"other": 1}', "a list": "[1]", "rubbish": "\udcff\x00",
    "a text where a time is": {"created_at": "yesterday"}, "a time beyond calendars": {"created_at": 1e300},
    "no totals": {"scores": {"base": {}, "tuned": {}, "rows": [], "total": 0, "cancelled": False}},
    "no scores": {"scores": None}, "rows of another version": {"scores": scores() | {"rows": [{"prompt": "x"}]}},
}  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGES, "a folder", "not readable"])
def test_a_damaged_file_is_named_and_the_others_go_on(folder, jobs, damage, monkeypatch):
    boards = Scoreboards(folder, evaluate, jobs)
    name = boards.start("d", ROWS, REF, ASK)
    ended(jobs, "evaluation")
    path = old(folder)
    how = DAMAGES.get(damage)
    if isinstance(how, dict):
        old(folder, **how)
    elif how is not None:
        path.write_text(how, encoding="utf-8", errors="surrogateescape")
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        unreadable(monkeypatch, path)
    found, (error,) = boards.look()
    assert [board.name for board in found] == [name]
    assert (error.code, error.params["file"]) == ("scores-damaged", str(path))
    assert error.params["reason"]
    for lang in ("en", "zh"):
        assert "best-demo.json" in problem_html(error, lang)


def test_the_words_of_a_scoreboard(folder, jobs):
    boards = Scoreboards(folder, evaluate, jobs)
    boards.start("d", ROWS, REF, ASK)
    ended(jobs, "evaluation")
    (board,) = boards.all()
    table = scores_html(board, "en", has_runs=True)
    assert "<td>Valid JSON</td><td>0.500</td>" in table
    assert "Triple" not in table
    assert [place for place, *_ in rows_of(board, "wrong")] == [2, 3]
    assert [place for place, *_ in rows_of(board, "better")] == [0]
    assert [place for place, *_ in rows_of(board, "worse")] == [3]
    assert "&lt;b&gt;" in rows_html(board, "all", 3, "en")
    whole = row_html(board, 3, "en")
    assert "&lt;" in whole
    assert "<b>" not in whole
    assert "class=chosen" in boards_html([board], board, {"run-0001": "run 1"}, "en")
    assert "<th>Right</th>" in boards_html([board], None, {}, "en")
    assert "还没有评测" in scores_html(None, "zh", has_runs=True)
    assert "请先到“训练”" in scores_html(None, "zh", has_runs=False)
    running = progress_html(BackgroundJob("1", "evaluation", {}, done=1, total=4, seconds_left=30.0), "en")
    assert "1 / 4 rows" in running
    assert "00:30" in running


def test_targets_that_are_json_objects_are_shown_and_an_older_file_without_them_too():
    pairs = [('{"city": "Oslo", "count": 2}', '{"count": 2, "city": "Oslo"}'), ('{"city": "Oslo"}', '{"city": "Bern"}')]
    tuned, base = score(pairs) | {"finish_reasons": {}}, score([(pairs[0][0], "Oslo")] * 2) | {"finish_reasons": {}}
    rows = [{"instruction": "", "input": "x", "target": pair[0], "base": "Oslo", "tuned": pair[1]} for pair in pairs]
    board = Scoreboard(
        "run-0001", "best", "d", 0.0, {"base": base, "tuned": tuned, "rows": rows, "cancelled": False, "total": 2}
    )
    table = scores_html(board, "en", has_runs=True)
    assert '<td>JSON accuracy</td><td>0.000</td><td class="ok"><b>0.500</b></td><td>2</td>' in table
    assert '<td>Right</td><td>0.000</td><td class="ok"><b>0.500</b></td><td>2</td>' in table
    assert '<td>Exact match</td><td>0.000</td><td class=""><b>0.000</b></td><td>2</td>' in table
    assert "<td>0.500</td>" in boards_html([board], None, {}, "en")
    for totals in (base, tuned):
        for name in ("json_accuracy", "value_rows", "value_correct", "accuracy"):
            del totals[name]
    assert "JSON accuracy" not in scores_html(board, "en", has_runs=True)
    assert "<td>0.500</td>" in boards_html([board], None, {}, "en")
