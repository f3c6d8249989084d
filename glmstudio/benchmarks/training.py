"""The training benchmark: every way on the same model and rows, as records and as a table. Knows no tensor."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

from glmstudio.benchmarks.processes import Job, installed, interleaved, measured
from glmstudio.benchmarks.tables import table

LLAMA_FACTORY = "llama-factory"
RIVALS = ("ours", "hf-plain", "hf-best", "seed", LLAMA_FACTORY)
# Every row costs the older loop the same, so a few updates of it tell as much as many.
FEW, SLOW = 1, "seed"
# Before the results of a way: what the machine could do.
LIMIT = "matmul"


@dataclass(frozen=True)
class TrainingBench:
    """What is measured. `updates` are timed, `loss_updates` compared; both take eight rows. `rows` is a data file, or
    empty for synthetic ones; `device`, `dtypes` and `quantization` are those of `load_base`; `llama_factory` is the
    interpreter that has LLaMA-Factory, by default this one."""

    sizes: Sequence[str] = ("512x12", "1024x16")
    dtypes: Sequence[str] = ("bf16", "fp32")
    families: Sequence[str] = ("glm",)
    rivals: Sequence[str] = RIVALS
    updates: int = 20
    loss_updates: int = 20
    rounds: int = 3
    threads: int = 1
    rows: str = ""
    device: str = "auto"
    quantization: str = "none"
    llama_factory: str = ""


def bench_training(
    bench: TrainingBench,
    *,
    measure: Callable[[Job], dict[str, Any]] = measured,
    tell: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """A record for each family, size, dtype and way that can run here; `llama-factory` only where it is installed.

    Speeds are real tokens (no padding) and rows per second of processor time; on CUDA per second.
    """
    rivals = bench.rivals
    if LLAMA_FACTORY in rivals and not installed("llamafactory", bench.llama_factory):
        tell(f"{LLAMA_FACTORY} is not installed for {bench.llama_factory or sys.executable} and is left out")
        rivals = [way for way in rivals if way != LLAMA_FACTORY]
    records = []
    for shape in _shapes(bench):
        # Without a way there is nothing to hold against the limit.
        if ways := [way for way in rivals if way != LLAMA_FACTORY or _loads_there(shape)]:
            records += _of_shape(bench, ways, shape, measure, tell)
    return records


def _loads_there(shape: dict[str, str]) -> bool:
    """LLaMA-Factory takes its models from transformers, which ChatGLM-6B's architecture has left."""
    return shape["family"] == "glm" and shape["quantization"] == "none"


def _shapes(bench: TrainingBench) -> Iterator[dict[str, str]]:
    for family, size, dtype in product(bench.families, bench.sizes, bench.dtypes):
        yield {"family": family, "size": size, "dtype": dtype, "quantization": bench.quantization}


def bench_profile(
    bench: TrainingBench,
    *,
    measure: Callable[[Job], dict[str, Any]] = measured,
    tell: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """For each family, size and dtype: seconds of every kind of operation in our own steps, medians of the rounds."""
    records = []
    for shape in _shapes(bench):
        job = {"way": "profile", "shape": shape, "rows": bench.rows, "updates": bench.updates}
        tell(" ".join((*shape.values(), job["way"])))
        rounds = [measure(job | {"threads": bench.threads, "device": bench.device}) for _ in range(bench.rounds)]
        records.append(shape | {kind: median(found[kind] for found in rounds) for kind in rounds[0]})
    return records


def profile_table(records: Sequence[dict[str, Any]]) -> str:
    """The shares of the kinds, in percent of the sum, as a Markdown table."""
    kinds = [name for name in records[0] if name not in ("family", "size", "dtype", "quantization")]
    rows = []
    for record in records:
        total = sum(record[kind] for kind in kinds)
        rows.append((_name(record), _dtype(record), *(f"{record[kind] / total:.0%}" for kind in kinds)))
    return table(("model", "dtype", *kinds), rows)


def _of_shape(
    bench: TrainingBench,
    ways: Sequence[str],
    shape: dict[str, str],
    measure: Callable[[Job], dict[str, Any]],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    def one(way: str) -> dict[str, Any]:
        few = min(bench.updates, FEW) if way == SLOW else bench.updates
        few_losses = min(bench.loss_updates, FEW) if way == SLOW else bench.loss_updates
        tell(" ".join((*shape.values(), way)))
        job = {"way": way, "shape": shape, "rows": bench.rows, "updates": few, "loss_updates": few_losses}
        where = {"threads": bench.threads, "device": bench.device, "llama_factory": bench.llama_factory}
        return measure(job | where)

    results = interleaved([LIMIT, *ways], bench.rounds, one)
    rate = max(result["rate"] for result in results[LIMIT])
    limit = rate / results[LIMIT][0]["flop_per_token"]
    told = {"limit_tokens_per_second": limit, "matmul_gflops": rate / 1e9, "device": results[LIMIT][0]["device"]}
    ours = results["ours"][0]["losses"] if "ours" in results else []
    return [shape | _record(way, results[way], ours, limit) | told for way in ways]


def _record(way: str, results: list[dict[str, Any]], ours: list[float], limit: float) -> dict[str, Any]:
    tokens = median(result["tokens"] / result["seconds"] for result in results)
    losses = results[0]["losses"]
    pairs = list(zip(losses, ours, strict=False))
    return {
        "way": way,
        "tokens_per_second": tokens,
        "samples_per_second": median(result["samples"] / result["seconds"] for result in results),
        "peak_mib": median(result["peak_mib"] for result in results),
        "losses": losses,
        "loss_updates": len(pairs),
        "loss_difference": max((abs(theirs - own) for theirs, own in pairs), default=None),
        "share_of_limit": tokens / limit,
    }


def training_table(records: Sequence[dict[str, Any]]) -> str:
    """The records as a Markdown table; `ours ×` is how many times as fast ours is on the same model. Behind it what it
    was measured on, with the rate of its products."""
    head = ("model", "dtype", "way", "tokens/s", "rows/s", "ours ×", "peak MiB", "loss", "Δ loss", "of the limit")
    ours = {_model(record): record["tokens_per_second"] for record in records if record["way"] == "ours"}
    rows = []
    for record in records:
        own, difference = ours.get(_model(record)), record["loss_difference"]
        rows.append(
            (
                _name(record),
                _dtype(record),
                record["way"],
                f"{record['tokens_per_second']:,.0f}",
                f"{record['samples_per_second']:.2f}",
                f"{own / record['tokens_per_second']:.2f}" if own else "",
                f"{record['peak_mib']:,.0f}",
                f"{record['losses'][-1]:.4f} ({len(record['losses'])})",
                "" if difference is None else f"{difference:.1e}",
                f"{record['share_of_limit']:.0%}",
            )
        )
    rates = {(record["device"], record["dtype"]): f"{record['matmul_gflops']:,.0f} GFLOP/s" for record in records}
    return "\n".join((table(head, rows), "", *(f"{' '.join(where)} {rate}" for where, rate in rates.items())))


def _name(record: dict[str, Any]) -> str:
    return f"{record['family']} {record['size']}"


def _dtype(record: dict[str, Any]) -> str:
    return record["dtype"] if record["quantization"] == "none" else record["quantization"]


def _model(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(record[name] for name in ("family", "size", "dtype", "quantization"))
