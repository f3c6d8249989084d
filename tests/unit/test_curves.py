"""The tails that the page reads: on where they ended, and anew for a run that was cut back and goes on."""

from pathlib import Path
from types import SimpleNamespace

from glmstudio.training.metrics import MetricWriter, cut_back, read_from
from glmstudio.ui.curves import Curves


def write(path: Path, *steps: int) -> None:
    writer = MetricWriter(path)
    for step in steps:
        writer.write("train", step=step, epoch=step / 4, loss=1.0 / step, learning_rate=0.1)
    writer.close()


def test_a_run_that_goes_on_has_no_double_points(tmp_path: Path) -> None:
    path, run = tmp_path / "metrics.jsonl", SimpleNamespace(id="run-0001", started_at=1.0)
    studio = SimpleNamespace(metrics=lambda run_id, offset: read_from(path, offset))
    curves = Curves(studio)
    write(path, 1, 2, 3, 4)
    first = curves.tail(run)
    assert (first.curve.size, first.latest["train"].step) == (4, 4)
    write(path, 5)
    assert curves.tail(run) is first
    assert first.curve.size == 5
    cut_back(path, 2)
    run.started_at = 2.0
    write(path, 3, 4, 5, 6)
    again = curves.tail(run)
    assert (again.curve.size, again.latest["train"].step) == (6, 6)


def test_a_waiting_run_that_was_taken_out_between_two_looks_is_empty(tmp_path: Path) -> None:
    run = SimpleNamespace(id="run-0002", started_at=None)
    studio = SimpleNamespace(metrics=lambda run_id, offset: read_from(tmp_path / run_id / "metrics.jsonl", offset))
    assert Curves(studio).tail(run).curve.size == 0
