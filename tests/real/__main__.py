"""Train, evaluate, compare, merge and GGUF on the command line with real weights, each held against plain tools.

`python -m tests.real [smollm2 gemma3]` prints a table, a line for each model and number type, and fails where ours is
not theirs. What it makes lies below build/real.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from glmstudio.benchmarks.tables import table
from glmstudio.training.batches import StepSampler
from glmstudio.training.metrics import read_from
from tests.real import plain
from tests.real.models import MODELS, model_folder
from tests.real.task import write_rows

PLACE = Path("build/real")
TRAIN_ROWS, DEV_ROWS, MOST_TOKENS = 96, 20, 60
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# What separates right from wrong: of a step's loss the difference over the first step's, of the merged logits that of
# their size. In bf16 a run is up to a tenth off the same run in float32, by plain tools, too.
LOSS = {"fp32": 1e-4, "bf16": 5e-2}
MERGE = 2e-5
COLUMNS = ("model", "numbers", "steps", "loss", "largest difference", "right before", "right after",
           "answers as generate()", "merged logits", "answers as llama.cpp")  # fmt: skip


class Refused(Exception):
    """What the program said instead of doing it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="which of the models [all]")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="number types to train in [%(default)s]")
    args = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    lines, wrong = [], []
    for name in args.models or MODELS:
        for dtype in args.dtypes.split(","):
            line, found = _through(name, dtype)
            lines.append([line[column] for column in COLUMNS])
            wrong += [f"{MODELS[name].title}, {dtype}: {what}" for what in found]
    print(table(COLUMNS, lines))
    for what in wrong:
        print(f"wrong: {what}")
    return bool(wrong)


def _through(name: str, dtype: str) -> tuple[dict[str, str], list[str]]:
    """(a line of the table, what is wrong) of one model in one number type."""
    line = dict.fromkeys(COLUMNS, "") | {"model": MODELS[name].title, "numbers": dtype}
    try:
        return _held_against(name, dtype, line)
    except Refused as refusal:
        return line | {"loss": "see below"}, [str(refusal)]


def _held_against(name: str, dtype: str, line: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    style, folder, wrong = MODELS[name].style, model_folder(name, PLACE), []
    files = {
        split: write_rows(PLACE / f"{split}.jsonl", count, seed)
        for split, count, seed in (("train", TRAIN_ROWS, 1), ("dev", DEV_ROWS, 2))
    }
    rows = {split: [json.loads(text) for text in file.read_text().splitlines()] for split, file in files.items()}
    work = PLACE / f"{name}-{dtype}"
    shutil.rmtree(work, ignore_errors=True)
    base = ("--base", str(folder), "--dtype", dtype, "--device", "cpu")
    settings = {
        "prompt-style": style, "num-train-epochs": 1, "learning-rate": plain.RATE, "lr-scheduler-type": "constant",
        "warmup-ratio": 0, "per-device-train-batch-size": plain.BATCH, "lora-rank": plain.RANK,
        "lora-alpha": plain.ALPHA, "target-modules": ",".join(plain.MODULES), "seed": plain.SEED,
    }  # fmt: skip
    flags = [word for flag, value in settings.items() for word in (f"--{flag}", value)]
    where = ("--train-path", files["train"], "--dev-path", files["dev"], "--output-dir", work / "run")
    _studio("train", *base, *where, *flags)
    adapter, records = work / "run" / "last", read_from(work / "run" / "metrics.jsonl")[0]
    ours = [record.values["loss"] for record in records if record.kind == "train"]
    _tell(name, dtype, "the same steps by the Trainer and PEFT")
    theirs = plain.losses(folder, DTYPES[dtype], _as_taken(folder, rows["train"], style), style)
    worst = max(abs(own - other) for own, other in zip(ours, theirs, strict=True)) / theirs[0]
    line |= {"steps": str(len(ours)), "loss": f"{ours[0]:.3f} → {ours[-1]:.3f}", "largest difference": f"{worst:.1e}"}
    if not worst < LOSS[dtype]:
        wrong.append(f"losses differ by {worst:.1e}")

    asked = (*base, "--adapter", adapter, "--max-new-tokens", MOST_TOKENS)
    _studio("evaluate", *asked, "--dev-path", files["dev"], "--output", work / "scores.json")
    scores = json.loads((work / "scores.json").read_text())
    said = [row["tuned"] for row in scores["rows"]]
    for column, of in (("right before", "base"), ("right after", "tuned")):
        line[column] = f"{scores[of]['right']} of {DEV_ROWS}"
    _tell(name, dtype, "the same answers by generate()")
    generated = plain.answers(folder, adapter, DTYPES[dtype], rows["dev"], style, MOST_TOKENS)
    line["answers as generate()"] = f"{_equal(said, generated)} of {DEV_ROWS}"
    first = rows["dev"][0]
    compared = json.loads(
        _studio("compare", *asked, "--json", "--instruction", first["instruction"], "--input", first["input"])
    )
    if said[0] not in json.dumps(compared, ensure_ascii=False).replace('\\"', '"'):
        wrong.append("compare and evaluate answer differently")
    if dtype == "bf16":
        return line, wrong
    if said != generated:
        wrong.append("answers are not those of generate()")

    # Merged and exported in full precision only: what bf16 rounds away there is no question of ours.
    _studio("merge", *base[:2], "--dtype", "fp32", "--adapter", adapter, "--output-dir", work / "merged")
    error = plain.merge_error(folder, adapter, work / "merged", rows["dev"][:3], style)
    _studio("gguf", "--model", work / "merged", "--output", work / "model.gguf", "--outtype", "f32")
    _tell(name, dtype, "the same answers by llama.cpp")
    spoken = plain.llama_cpp_answers(work / "model.gguf", folder, rows["dev"], style, MOST_TOKENS)
    line |= {"merged logits": f"{error:.1e}", "answers as llama.cpp": f"{_equal(said, spoken)} of {DEV_ROWS}"}
    if not error < MERGE:
        wrong.append(f"merged logits differ by {error:.1e}")
    if _equal(said, spoken) < DEV_ROWS:
        wrong.append("answers are not those of llama.cpp")
    return line, wrong


def _as_taken(folder: Path, rows: list[dict[str, str]], style: str) -> list[dict[str, str]]:
    """The rows in the order in which a run takes them."""
    steps = StepSampler([1] * len(rows), plain.BATCH, plain.SEED, alike=False)
    steps.set_epoch(0)
    return [rows[number] for step in steps for number in step]


def _equal(ours: list[str], theirs: list[str]) -> int:
    return sum(one.strip() == other.strip() for one, other in zip(ours, theirs, strict=True))


def _tell(name: str, dtype: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {MODELS[name].title}, {dtype}: {what}", file=sys.stderr, flush=True)


def _studio(*words: Any) -> str:
    """Runs a command of the program and gives what it printed. Raises Refused with its last words."""
    command = [sys.executable, "-m", "glmstudio", *map(str, words)]
    print("$ python", *command[1:], file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused((done.stderr.strip().splitlines() or [f"{words[0]} failed"])[-1])
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
