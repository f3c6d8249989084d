"""metrics.jsonl: whole lines only, tailed by offset."""

import json
import threading
from pathlib import Path

import pytest

from glmstudio.training.metrics import MetricRecord, MetricWriter, cut_back, read_from


def test_a_line_is_exactly_what_is_documented(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path / "metrics.jsonl")
    writer.write("train", step=3, epoch=0.25, loss=1.5, tokens_per_second=10.0)
    writer.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert list(record) == ["kind", "step", "epoch", "time", "values"]
    assert record["kind"] == "train"
    assert record["step"] == 3
    assert record["epoch"] == 0.25
    assert record["values"] == {"loss": 1.5, "tokens_per_second": 10.0}
    assert 1.7e9 < record["time"] < 1e11


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_from(path, 0) == ([], 0)
    writer = MetricWriter(path)
    writer.write("train", step=1, epoch=0.1, loss=2.0)
    first, offset = read_from(path, 0)
    assert [record.step for record in first] == [1]
    assert read_from(path, offset) == ([], offset)
    writer.write("eval", step=1, epoch=0.1, loss=1.0)
    writer.write("event", step=1, epoch=0.1, code="best", loss=1.0, former=None)
    more, end = read_from(path, offset)
    assert [(record.kind, record.values.get("code")) for record in more] == [("eval", None), ("event", "best")]
    assert end == path.stat().st_size
    writer.close()


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"kind": "train", "step": 1, "epoch": 0.5, "time": 1.0, "values": {"loss": 2.0}}).encode()
    path.write_bytes(line[:20])
    assert read_from(path, 0) == ([], 0)
    path.write_bytes(line + b"\n" + line[:5])
    records, offset = read_from(path, 0)
    assert records == [MetricRecord("train", 1, 0.5, 1.0, {"loss": 2.0})]
    assert offset == len(line) + 1


def test_a_torn_line_does_not_hide_the_ones_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "st\n')
    writer = MetricWriter(path)
    writer.write("eval", step=2, epoch=1.0, loss=1.0)
    writer.close()
    records, offset = read_from(path, 0)
    assert [record.kind for record in records] == ["eval"]
    assert offset == path.stat().st_size


@pytest.mark.parametrize(
    "line", ["7", "[]", "{}", '{"kind": "train", "step": "three", "epoch": 1.0, "time": 5.0, "values": {}}', "\x00"]
)
def test_a_line_of_another_kind_is_no_record(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricWriter(path)
    path.write_text(line + "\n", encoding="utf-8")
    writer.write("train", step=1, epoch=1, loss=float("nan"))
    writer.close()
    assert [record.step for record in read_from(path)[0]] == [1]


def test_a_reader_beside_the_writer_sees_every_record_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricWriter(path)

    def write() -> None:
        for step in range(500):
            writer.write("train", step=step, epoch=0.0, loss=float(step), note="训练" * 50)

    thread = threading.Thread(target=write)
    thread.start()
    seen, offset = [], 0
    while len(seen) < 500:
        alive = thread.is_alive()
        records, offset = read_from(path, offset)
        seen += [record.step for record in records]
        if not alive:
            break
    thread.join()
    assert seen == list(range(500))
    writer.close()


def test_what_is_cut_back_ends_at_the_step_and_loses_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    cut_back(path, 3)
    assert not path.exists()
    writer = MetricWriter(path)
    for step in (1, 2):
        writer.write("train", step=step, epoch=0.5, loss=float(step))
    writer.write_together(("eval", {"loss": 0.5}), ("event", {"code": "best"}), step=2, epoch=1.0)
    before = path.read_bytes()
    writer.write("train", step=3, epoch=1.5, loss=3.0)
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "step": 2, "ep')
    cut_back(path, 2)
    assert path.read_bytes() == before
    assert [record.kind for record in read_from(path)[0]] == ["train", "train", "eval", "event"]
