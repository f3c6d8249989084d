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
    path, run = tmp_path / "metrics.jsonl", SimpleNamespace(started_at=1.0)
    studio = SimpleNamespace(run=lambda run_id: run, metrics=lambda run_id, offset: read_from(path, offset))
    curves = Curves(studio)
    write(path, 1, 2, 3, 4)
    first = curves.tail("run-0001")
    assert (first.curve.size, first.latest["train"].step) == (4, 4)
    write(path, 5)
    assert curves.tail("run-0001") is first
    assert first.curve.size == 5
    cut_back(path, 2)
    run.started_at = 2.0
    write(path, 3, 4, 5, 6)
    again = curves.tail("run-0001")
    assert (again.curve.size, again.latest["train"].step) == (6, 6)
