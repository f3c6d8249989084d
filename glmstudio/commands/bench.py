"""The command `bench`: what the project claims about speed, measured again. Knows no model."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from glmstudio.settings import DTYPES, QUANTIZATIONS

FAMILIES = ("glm", "chatglm")
PAGE_PARTS = ("check", "list", "idle", "train")


def add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="time the store, training beside other trainers, answering, or the page")
    what = parser.add_subparsers(required=True, metavar="store|train|profile|compare|page")
    store = what.add_parser("store", help="time the store at 100,000 rows")
    store.add_argument("--rows", type=int, default=100_000)
    store.set_defaults(command=bench_store_command)
    train = what.add_parser("train", help="train random models in every way that is installed")
    _shared(train, "512x12,1024x16", "bf16,fp32")
    rivals = "ours,hf-plain,hf-best,seed,llama-factory"
    train.add_argument("--rivals", type=_words, default=_words(rivals), help=f"the ways to train [{rivals}]")
    train.add_argument("--updates", type=int, default=20, help="timed optimizer steps of eight rows [20]")
    train.add_argument("--loss-updates", type=int, default=20, help="steps whose losses are compared [20]")
    words = "the python of an environment with LLaMA-Factory, whose packages are older than ours [this one]"
    train.add_argument("--llama-factory", metavar="PYTHON", default="", help=words)
    train.set_defaults(command=bench_train_command)
    profile = what.add_parser("profile", help="show where the time of our own training goes")
    _shared(profile, "512x12,1024x16", "bf16,fp32")
    profile.add_argument("--updates", type=int, default=4, help="optimizer steps of eight rows, at least three [4]")
    profile.set_defaults(command=bench_profile_command, rivals=(), loss_updates=0, llama_factory="")
    compare = what.add_parser("compare", help="answer with base and adapter in one batch, and in transformers' ways")
    _shared(compare, "512x12", "fp32")
    compare.add_argument("--prompts", type=_numbers, default=(1, 16), help="numbers of prompts [1,16]")
    compare.add_argument("--new-tokens", type=int, default=64, help="tokens of each answer [64]")
    compare.add_argument("--dev-rows", type=int, default=0, help="rows of a set with answers of uneven lengths [none]")
    compare.add_argument("--set-tokens", type=int, default=128, help="the most tokens of an answer in that set [128]")
    compare.set_defaults(command=bench_compare_command)
    page = what.add_parser("page", help="what looking costs: the program with a real browser")
    page.add_argument("--parts", "--part", type=_parts, default=PAGE_PARTS, help=f"[{','.join(PAGE_PARTS)}]")
    page.add_argument("--rows", type=int, default=20_000, help="rows of the largest dataset [20000]")
    page.add_argument("--runs", type=int, default=100, help="finished runs [100]")
    page.add_argument("--pages", type=_numbers, default=(0, 1, 3), help="numbers of pages that stand idle [0,1,3]")
    page.add_argument("--seconds", type=float, default=15.0, help="of every window of time [15]")
    page.add_argument("--rounds", type=int, default=4, help="everything that often; medians are given [4]")
    page.add_argument("--output", type=Path, help="a file for the numbers as JSON")
    page.set_defaults(command=bench_page_command)


def bench_store_command(args: argparse.Namespace) -> int:
    from glmstudio.data.bench import bench_store

    print(json.dumps(bench_store(args.rows), ensure_ascii=False, indent=2))
    return 0


def bench_train_command(args: argparse.Namespace) -> int:
    from glmstudio.benchmarks.training import TrainingBench, bench_training, training_table

    records = bench_training(_filled(TrainingBench, args), tell=_tell)
    return _give(records, training_table(records), args.output)


def bench_profile_command(args: argparse.Namespace) -> int:
    from glmstudio.benchmarks.training import TrainingBench, bench_profile, profile_table

    records = bench_profile(_filled(TrainingBench, args), tell=_tell)
    return _give(records, profile_table(records), args.output)


def bench_compare_command(args: argparse.Namespace) -> int:
    from glmstudio.benchmarks.comparing import ComparingBench, bench_comparing, comparing_table

    records = bench_comparing(_filled(ComparingBench, args), tell=_tell)
    return _give(records, comparing_table(records), args.output)


def bench_page_command(args: argparse.Namespace) -> int:
    from glmstudio.benchmarks.page import PageBench, bench_page, page_table

    records = bench_page(_filled(PageBench, args), tell=_tell)
    return _give(records, page_table(records), args.output)


def _shared(parser: argparse.ArgumentParser, sizes: str, dtypes: str) -> None:
    words = f"hidden × layers of the random models, or 6b for ChatGLM-6B's own on a GPU [{sizes}]"
    parser.add_argument("--sizes", "--size", type=_words, default=_words(sizes), help=words)
    parser.add_argument("--dtypes", "--dtype", type=_dtypes, default=_words(dtypes), help=f"[{dtypes}]")
    parser.add_argument("--families", "--family", type=_families, default=("glm",), help="glm, chatglm [glm]")
    parser.add_argument("--quantization", default="none", choices=QUANTIZATIONS)
    parser.add_argument("--rounds", type=int, default=3, help="every way that often, in turn; medians are given [3]")
    parser.add_argument("--threads", type=int, default=1, help="[1]")
    parser.add_argument("--rows", default="", help="a data file whose rows are taken [synthetic rows]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … [auto]")
    parser.add_argument("--output", type=Path, help="a file for the numbers as JSON")


def _filled(kind: type, args: argparse.Namespace) -> Any:
    return kind(**{item.name: getattr(args, item.name) for item in dataclasses.fields(kind)})


def _give(records: list[dict[str, Any]], text: str, output: Path | None) -> int:
    print(text)
    if output is None:
        print(json.dumps(records))
    else:
        output.write_text(json.dumps(records, indent=2), encoding="utf-8")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, _words(text)))


def _dtypes(text: str) -> tuple[str, ...]:
    return _among(text, DTYPES)


def _parts(text: str) -> tuple[str, ...]:
    return _among(text, PAGE_PARTS)


def _families(text: str) -> tuple[str, ...]:
    return _among(text, FAMILIES)


def _among(text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := set(_words(text)) - set(choices):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(choices)}")
    return _words(text)
