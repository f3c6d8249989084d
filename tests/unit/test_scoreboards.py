"""Evaluations in the background: progress, files, stopping, failing, and what the page says of them."""

import threading
from types import SimpleNamespace

import pytest

from glmstudio.data.example import Example
from glmstudio.errors import StudioError
from glmstudio.evaluation.scores import score
from glmstudio.scoreboards import Evaluation, Scoreboards
from glmstudio.ui.evaluate_words import boards_html, progress_html, row_html, rows_html, rows_of, scores_html

REF = SimpleNamespace(run_id="run-0001", checkpoint="best")
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
    return totals | {"rows": rows, "total": 4, "cancelled": count < 4}


def evaluate(examples, ref, settings, on_progress, should_stop):
    for done in range(1, 5):
        on_progress(done, len(examples))
    return scores()


def ended(boards: Scoreboards) -> Evaluation:
    boards.close(600)
    return boards.now()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run-0001").mkdir()
    return tmp_path


def test_a_scoreboard_is_kept_and_replaced_by_the_next_of_the_same_rows(folder):
    boards = Scoreboards(folder, evaluate)
    for dataset in ("城市 一", "城市 一", "other"):
        name = boards.start(dataset, ROWS, REF, None)
        now = ended(boards)
        assert (now.state, now.name, now.done, now.total) == ("done", name, 4, 4)
    found = Scoreboards(folder, evaluate).all()
    assert [board.dataset for board in found] == ["other", "城市 一"]
    assert found[0].scores == scores()
    assert boards.path("run-0001", "best", "other").is_file()


def test_one_at_a_time_and_a_stop_keeps_what_was_answered(folder):
    begun = threading.Event()

    def slow(examples, ref, settings, on_progress, should_stop):
        begun.set()
        while not should_stop():
            begun.wait(0.01)
        return scores(2)

    boards = Scoreboards(folder, slow)
    boards.start("d", ROWS, REF, None)
    begun.wait(600)
    with pytest.raises(StudioError, match="evaluation-active"):
        boards.start("d", ROWS, REF, None)
    boards.stop()
    assert ended(boards).state == "done"
    (board,) = boards.all()
    assert board.scores["cancelled"]
    assert len(board.scores["rows"]) == 2


@pytest.mark.parametrize("error", [StudioError("answer-not-finite", adapter="x"), ValueError("broken")])
def test_a_failure_is_told_and_leaves_no_file(folder, error):
    def failing(*_):
        raise error

    boards = Scoreboards(folder, failing)
    boards.start("d", ROWS, REF, None)
    now = ended(boards)
    assert now.state == "failed"
    assert progress_html(now, "en").startswith('<p class="glm-bad">')
    assert boards.all() == []


def test_files_that_are_none_are_left_out(folder):
    (folder / "run-0001" / "scores").mkdir()
    (folder / "run-0001" / "scores" / "x.json").write_text("{")
    (folder / "run-0001" / "scores" / "y.json").write_text('{"other": 1}')
    assert Scoreboards(folder, evaluate).all() == []


def test_the_words_of_a_scoreboard(folder):
    boards = Scoreboards(folder, evaluate)
    boards.start("d", ROWS, REF, None)
    ended(boards)
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
    assert "class=chosen" in boards_html([board], board.name, {"run-0001": "run 1"}, "en")
    assert "还没有评测" in scores_html(None, "zh", has_runs=True)
    assert "请先到“训练”" in scores_html(None, "zh", has_runs=False)
    running = progress_html(Evaluation("running", "x", 1, 4, 30.0), "en")
    assert "1 / 4 rows" in running
    assert "00:30" in running
