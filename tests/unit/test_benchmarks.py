"""The benchmarks: same rows, same start and a complete table; the limit's formula against a model counted by hand."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from glmstudio.benchmarks.clock import device_name
from glmstudio.benchmarks.comparing import ComparingBench, bench_comparing, comparing_table
from glmstudio.benchmarks.limit import training_flop
from glmstudio.benchmarks.profiling import KINDS, REST, by_kind
from glmstudio.benchmarks.random_base import LORA, Shape, random_base
from glmstudio.benchmarks.rows import bench_rows, synthetic_rows
from glmstudio.benchmarks.training import TrainingBench, bench_profile, bench_training, profile_table, training_table
from glmstudio.benchmarks.ways import rendered
from glmstudio.benchmarks.worker import run_job
from glmstudio.cli import main
from glmstudio.commands.bench import FAMILIES
from glmstudio.errors import StudioError
from glmstudio.models.chat_format import Rendered
from tests import fake_llama_factory


def test_synthetic_rows_have_the_lengths_that_they_are_said_to_have() -> None:
    base = random_base(Shape("glm", "64x1"), "cpu")
    for count in (32, 160):
        rows = rendered(base, synthetic_rows(count, 16384))
        lengths = [len(row.ids) for row in rows]
        assert sum(lengths) / count == pytest.approx(141, abs=6)
        assert max(lengths) <= 450
        assert sum(sum(row.bears_loss) for row in rows) / (700 * count) == pytest.approx(0.09, abs=0.01)
        assert all(row.cut_prompt == row.cut_target == 0 for row in rows)
    assert synthetic_rows(16, 16384) == synthetic_rows(16, 16384)


def test_rows_of_a_file_keep_their_repetitions_and_must_be_enough(tmp_path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [{"instruction": "Name it.", "input": "red and red", "output": word} for word in ("red", "blue")]
    file.write_text("\n".join(map(json.dumps, lines)))
    first, second = bench_rows(str(file), 2, 16384)
    assert first.instruction == second.instruction
    assert first.target != second.target
    with pytest.raises(StudioError, match="bench-rows"):
        bench_rows(str(file), 3, 16384)


def test_the_limit_of_a_model_counted_by_hand() -> None:
    """hidden 64, two layers, 4 heads of 16, one for keys; q 64 → 64, k and v 64 → 16, o 64 → 64, 64 → 384, 192 → 64."""
    base = random_base(Shape("glm", "64x2"), "cpu")
    rows = [Rendered([1] * 10, [False] * 7 + [True] * 3, 7), Rendered([1] * 4, [False] * 3 + [True], 3)]
    body = 2 * (64 * 64 + 2 * 64 * 16 + 64 * 64 + 64 * 384 + 192 * 64)
    lora = 2 * 8 * (64 + 64 + 2 * (64 + 16))
    head, attention = 4 * 4 * 64 * 16384, 6 * 2 * 64 * (10**2 + 4**2)
    expected = 4 * body * 14 + 6 * lora * 14 + head + attention
    assert training_flop(base.model, LORA["glm"], rows) == expected


@pytest.mark.parametrize("family", ["glm", "chatglm"])
def test_ways_to_train_start_and_go_on_alike(family: str) -> None:
    bench = TrainingBench(
        ("64x2",), ("fp32",), (family,), ("ours", "hf-plain", "hf-best", "seed"), 2, 2, rounds=1, device="cpu"
    )
    records = bench_training(bench, measure=run_job)
    assert [record["way"] for record in records] == ["ours", "hf-plain", "hf-best", "seed"]
    ours = records[0]["losses"]
    assert len(ours) == 2
    assert ours[1] < ours[0]
    for record in records:
        assert record["losses"] == pytest.approx(ours[: len(record["losses"])], abs=1e-4)
        assert record["loss_difference"] < 1e-4
        assert record["tokens_per_second"] > 0
        assert record["peak_mib"] > 0
        assert 0 < record["share_of_limit"] < 1
    *lines, space, place = training_table(records).splitlines()
    assert len(lines) == 2 + 4
    assert not space
    assert place.startswith(device_name(torch.device("cpu")))
    assert place.endswith("GFLOP/s")
    assert all(cell.strip() for line in lines for cell in line.strip("|").split("|"))


def test_llama_factory_gets_our_model_rows_and_tokens(tmp_path, monkeypatch) -> None:
    (tmp_path / "llamafactory/train").mkdir(parents=True)
    shutil.copy(fake_llama_factory.__file__, tmp_path / "llamafactory/train/tuner.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bench = TrainingBench(("64x2",), ("fp32",), FAMILIES, ("ours", "llama-factory"), 2, 3, rounds=1, device="cpu")
    ours, theirs, chatglm = bench_training(bench, measure=run_job)
    assert (theirs["way"], chatglm["family"], chatglm["way"]) == ("llama-factory", "chatglm", "ours")
    assert theirs["losses"] == pytest.approx(ours["losses"], abs=1e-4)
    assert len(theirs["losses"]) == 3
    assert theirs["samples_per_second"] > 0
    assert theirs["peak_mib"] > 0


def test_what_is_not_installed_is_said_and_left_out() -> None:
    said = []
    bench = TrainingBench(("64x2",), ("fp32",), rivals=("llama-factory",), rounds=1, device="cpu")
    assert bench_training(bench, measure=run_job, tell=said.append) == []
    assert "llama-factory is not installed" in said[0]
    with pytest.raises(StudioError, match="bench-python"):
        bench_training(replace(bench, llama_factory="/nowhere/python"))


def test_the_profile_tells_products_from_attention_and_adds_up() -> None:
    bench = TrainingBench(("64x2",), ("fp32",), updates=3, rounds=1, device="cpu")
    (record,) = bench_profile(bench, measure=run_job)
    kinds = [record[kind] for kind in (*KINDS, REST)]
    assert all(seconds > 0 for seconds in kinds)
    *_, shares = profile_table([record]).splitlines()
    assert sum(float(cell.strip(" %")) for cell in shares.split("|")[3:-1]) == pytest.approx(100, abs=3)


def test_an_operation_is_of_one_kind() -> None:
    times = [("aten::mm", 1.0), ("aten::bmm", 2.0), ("aten::_softmax", 4.0), ("aten::mul", 16.0),
             ("aten::copy_", 32.0), ("ThinProductBackward", 64.0)]  # fmt: skip
    assert list(by_kind(times).values()) == [6.0, 1.0, 32.0, 16.0, 64.0]


@pytest.mark.parametrize("family", ["glm", "chatglm"])
def test_ways_to_answer_say_the_same(family: str) -> None:
    said: dict[str, list[list[int]]] = {}

    def measure(job):
        result = run_job(job)
        said[job["way"]] = result["answers"]
        return result

    records = bench_comparing(
        ComparingBench(("64x2",), ("fp32",), (family,), (2,), 36, new_tokens=6, set_tokens=20, rounds=1, device="cpu"),
        measure=measure,
    )
    assert {record["way"]: record["same_tokens"] for record in records} == dict.fromkeys(said, True)
    assert said["one-batch"][:2] != said["one-batch"][2:], "the adapter changes nothing"
    assert len(said["refilled"]) == 72
    assert len(set(map(len, said["refilled"]))) > 5, "the answers are all of one length"
    shares = {record["way"]: record["bandwidth_share"] for record in records}
    assert all(0 < shares[way] < 1 for way in ("one-batch", "two-calls", "adapter-names"))
    assert shares["refilled"] is None
    assert len(comparing_table(records).splitlines()) == 2 + 6


def test_other_tokens_in_fp32_are_an_error() -> None:
    def measure(job):
        return {"answers": [[len(job["way"])]], "tokens": 1, "seconds": 1.0, "peak_mib": 1.0}

    with pytest.raises(StudioError, match="bench-tokens"):
        bench_comparing(ComparingBench(prompts=(1,), rounds=1), measure=measure)


def test_the_command_measures_in_processes_of_their_own(tmp_path, capsys) -> None:
    output = tmp_path / "bench.json"
    sizes = ["--sizes", "64x2", "--dtype", "fp32", "--rivals", "ours,hf-plain", "--updates", "2", "--loss-updates", "2"]
    assert main(["bench", "train", *sizes, "--rounds", "1", "--device", "cpu", "--output", str(output)]) == 0
    ours, plain = json.loads(output.read_text())
    assert ours["losses"][0] == pytest.approx(plain["losses"][0], abs=1e-4)
    assert "| hf-plain |" in capsys.readouterr().out
    assert main(["bench", "train", "--sizes", "65x2", "--rivals", "ours", "--rounds", "1"]) == 2


def test_a_random_model_is_the_same_every_time() -> None:
    first, second = (random_base(Shape("chatglm", "64x1", "bf16"), "cpu").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(StudioError, match="bench-size"):
        random_base(Shape("glm", "6b"), "cpu")
