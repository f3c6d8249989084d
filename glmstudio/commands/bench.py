"""The command `bench`: what the project claims about speed, measured again. Knows no model."""

import argparse
import json
from typing import Any


def add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="time the store at 100,000 rows")
    parser.add_argument("what", choices=("store",))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.set_defaults(command=bench_command)


def bench_command(args: argparse.Namespace) -> int:
    from glmstudio.data.bench import bench_store

    print(json.dumps(bench_store(args.rows), ensure_ascii=False, indent=2))
    return 0
