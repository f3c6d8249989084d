"""The loss picture is a PNG that shows both curves, drawn from the run's file."""

from pathlib import Path

import matplotlib.image

from glmstudio.training.metrics import MetricWriter
from glmstudio.training.picture import DEV_COLOUR, TRAIN_COLOUR, write_picture


def shows(picture, colour: str) -> int:
    """Pixels of about that colour."""
    wanted = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return int((abs(picture[..., :3] - wanted).max(axis=-1) < 0.06).sum())


def test_both_curves_are_drawn(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path / "metrics.jsonl")
    for step in range(1, 40):
        writer.write("train", step=step, epoch=step / 10, loss=3 / step + 0.5)
    writer.write("eval", step=20, epoch=2.0, loss=1.0)
    writer.write("eval", step=40, epoch=4.0, loss=0.8)
    writer.write("event", step=40, epoch=4.0, code="best", loss=0.8)
    writer.close()
    path = write_picture(tmp_path / "metrics.jsonl", tmp_path / "log" / "loss.png")
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (600, 1080)
    assert shows(picture, TRAIN_COLOUR) > 300
    assert shows(picture, DEV_COLOUR) > 300


def test_a_single_point_is_seen(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path / "metrics.jsonl")
    writer.write("train", step=1, epoch=1.0, loss=2.0)
    writer.close()
    picture = matplotlib.image.imread(write_picture(tmp_path / "metrics.jsonl", tmp_path / "loss.png"))
    # In the middle: the legend in a corner has a mark of its own.
    assert shows(picture[:, 360:720], TRAIN_COLOUR) > 20


def test_a_run_without_records_gives_an_empty_picture(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "none.jsonl", tmp_path / "loss.png")
    assert shows(matplotlib.image.imread(path), TRAIN_COLOUR) == 0
