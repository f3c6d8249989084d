"""The benchmark of answering with base and adapter: every way on the same prompts, as records and a table.

Knows no model: every measurement is a job for another process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from glmstudio.benchmarks.processes import Job, interleaved, measured
from glmstudio.benchmarks.tables import table
from glmstudio.errors import StudioError

WAYS = ("one-batch", "two-calls", "adapter-names")
# For a whole set of rows, whose answers are of uneven lengths.
SET_WAYS = ("refilled", "fixed-batches", "two-calls-of-16")


@dataclass(frozen=True)
class ComparingBench:
    """What is measured: `prompts` are numbers of prompts, each answered by base and adapter with `new_tokens`, and
    `dev_rows` the number of rows of a set whose answers have up to `set_tokens` (0: none)."""

    sizes: Sequence[str] = ("512x12",)
    dtypes: Sequence[str] = ("fp32",)
    families: Sequence[str] = ("glm",)
    prompts: Sequence[int] = (1, 16)
    dev_rows: int = 0
    new_tokens: int = 64
    set_tokens: int = 128
    rounds: int = 3
    threads: int = 1
    rows: str = ""
    device: str = "auto"
    quantization: str = "none"


def bench_comparing(
    bench: ComparingBench,
    *,
    measure: Callable[[Job], dict[str, Any]] = measured,
    tell: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """A record for each family, size, dtype, number of prompts and way. Raises StudioError `bench-tokens` where two
    ways say different things in fp32; in bf16 ties may break differently."""
    records: list[dict[str, Any]] = []
    for family in bench.families:
        for size in bench.sizes:
            for dtype in bench.dtypes:
                shape = {"family": family, "size": size, "dtype": dtype, "quantization": bench.quantization}
                for prompts in bench.prompts:
                    records += _of_shape(bench, shape, WAYS, prompts, bench.new_tokens, measure, tell)
                if bench.dev_rows:
                    records += _of_shape(bench, shape, SET_WAYS, bench.dev_rows, bench.set_tokens, measure, tell)
    return records


def _of_shape(
    bench: ComparingBench,
    shape: dict[str, str],
    ways: Sequence[str],
    prompts: int,
    new_tokens: int,
    measure: Callable[[Job], dict[str, Any]],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    def one(way: str) -> dict[str, Any]:
        tell(" ".join((*shape.values(), str(prompts), way)))
        job = {"way": way, "shape": shape, "rows": bench.rows, "prompts": prompts, "new_tokens": new_tokens}
        return measure(job | {"threads": bench.threads, "device": bench.device})

    results = interleaved(ways, bench.rounds, one)
    answers = {way: results[way][0]["answers"] for way in ways}
    records = []
    for way in ways:
        equal = answers[way] == answers[ways[0]]
        if not equal and shape["dtype"] == "fp32" and shape["quantization"] == "none":
            raise StudioError("bench-tokens", way=way, family=shape["family"], size=shape["size"], prompts=prompts)
        shares = [result["bandwidth_share"] for result in results[way] if "bandwidth_share" in result]
        records.append(
            shape
            | {
                "prompts": prompts,
                "way": way,
                "tokens_per_second": median(result["tokens"] / result["seconds"] for result in results[way]),
                "prompts_per_second": median(prompts / result["seconds"] for result in results[way]),
                "bandwidth_share": median(shares) if shares else None,
                "peak_mib": median(result["peak_mib"] for result in results[way]),
                "same_tokens": equal,
            }
        )
    return records


def comparing_table(records: Sequence[dict[str, Any]]) -> str:
    """The records as a Markdown table; `ours ×` is how many times as fast one batch is, and `of bandwidth` the share of
    the time after the first token that reading the weights alone would take."""
    head = (
        "model",
        "dtype",
        "prompts",
        "way",
        "tokens/s",
        "prompts/s",
        "ours ×",
        "of bandwidth",
        "peak MiB",
        "same tokens",
    )
    ours = {_case(record): record["tokens_per_second"] for record in records if record["way"] in (WAYS[0], SET_WAYS[0])}
    rows = [
        (
            f"{record['family']} {record['size']}",
            record["dtype"] if record["quantization"] == "none" else record["quantization"],
            str(record["prompts"]),
            record["way"],
            f"{record['tokens_per_second']:,.0f}",
            f"{record['prompts_per_second']:,.2f}",
            f"{ours[_case(record)] / record['tokens_per_second']:.2f}",
            "–" if record["bandwidth_share"] is None else f"{record['bandwidth_share']:.0%}",
            f"{record['peak_mib']:,.0f}",
            "yes" if record["same_tokens"] else "no",
        )
        for record in records
    ]
    return table(head, rows)


def _case(record: dict[str, Any]) -> tuple[Any, ...]:
    of_set = record["way"] in SET_WAYS
    return (of_set, *(record[name] for name in ("family", "size", "dtype", "quantization", "prompts")))
