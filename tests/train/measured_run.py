"""Run as a program: short runs on random bases, each in a process of its own; prints the estimated and the measured
peak of each one's memory, and that of the probe before it, in bytes, as a line of JSON."""

import json
import multiprocessing
import random
import re
import sys
from pathlib import Path

from glmstudio.environment import prepare

prepare()

from glmstudio.benchmarks.random_base import LORA, Shape, random_base  # noqa: E402
from glmstudio.data.example import Example  # noqa: E402
from glmstudio.data.kept_rows import RowSet  # noqa: E402
from glmstudio.models.resident import Resident  # noqa: E402
from glmstudio.settings import TrainingSettings  # noqa: E402
from glmstudio.training.estimate import most_tokens, planned  # noqa: E402
from glmstudio.training.probe import probe  # noqa: E402
from glmstudio.training.runs import RunFolder  # noqa: E402
from glmstudio.training.token_counts import TokenCounts  # noqa: E402
from glmstudio.training.train import train  # noqa: E402


def main(folder: Path, shape: Shape, rows: int, tokens: int, steps: int, checkpointing: str) -> None:
    base = random_base(shape, "cpu")
    resident, numbers = Resident(base), random.Random(1)

    def words(count: float) -> str:
        return " ".join(str(numbers.randrange(100, 16000)) for _ in range(max(1, int(count))))

    # A whole batch of the longest rows, then rows of every length.
    lengths = [tokens] * rows + [tokens * numbers.random() for _ in range((steps - 1) * rows)]
    examples = [Example(words(length * 7 / 8), "", words(length / 8)) for length in lengths]
    settings = TrainingSettings(
        num_train_epochs=1,
        per_device_train_batch_size=rows,
        max_source_length=tokens,
        gradient_checkpointing=checkpointing,
    )
    lora = LORA[shape.family]
    sizes = TokenCounts().sizes(base.tokenizer, base.family, RowSet.of(examples, []), settings)
    forget_peak()
    measured = probe(resident, lora, settings, most=most_tokens(sizes, settings))
    probed = peak()
    _, found = planned(resident, measured, sizes, settings)
    # What the probe took does not count.
    forget_peak()
    place = RunFolder(folder)
    place.create(snapshot_id="abc", dataset="numbers", base=base, lora=lora, settings=settings)
    place.update(token_budget=found.token_budget, checkpointing=found.gradient_checkpointing)
    train(resident, place, examples, [], lora, settings)
    print(json.dumps({"estimated": found.total, "measured": peak(), "probed": probed}), flush=True)


def forget_peak() -> None:
    """The peak begins anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Without pages of files, which are the system's."""
    status = Path("/proc/self/status").read_text()
    most, *of_files = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmHWM", "RssFile", "RssShmem"))
    return (most - sum(of_files)) * 1024


if __name__ == "__main__":
    apart = multiprocessing.get_context("fork")
    for number, case in enumerate(sys.argv[2:]):
        family, size, dtype, rows, tokens, steps, checkpointing = case.split()
        measures = (int(rows), int(tokens), int(steps), checkpointing)
        shape = Shape(family, size, dtype)
        process = apart.Process(target=main, args=(Path(sys.argv[1], f"run-{number + 1:04d}"), shape, *measures))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
