"""Where the time of our own training goes: seconds of each kind of operation in the optimizer steps of a run.

Knows the names of torch's operations, no model and no other way to train.
"""

from collections.abc import Iterable, Sequence

from torch.profiler import ProfilerActivity, profile

from glmstudio.benchmarks.ways import ours
from glmstudio.data.example import Example
from glmstudio.models.loading import Base

# By the words that an operation's name has; the first that fits counts. What is no operation of torch's own is Python,
# autograd and the calls themselves.
KINDS = {
    "attention": ("bmm", "attention", "aten::_softmax", "ShortSample"),
    "linear layers": ("::mm", "addmm", "linear", "gemm"),
    "cross entropy": ("log_softmax", "gather", "scatter_add", "exp_"),
    "copies": ("copy_", "::cat", "fill_", "zero_", "clone", "index", "embedding"),
    "element by element": ("aten::",),
}
REST = "python, autograd, calls"


def profiled(base: Base, rows: Sequence[Example]) -> dict[str, float]:
    """Seconds of each of `KINDS` and of the rest over the steps of one epoch, the first step left out."""
    on_card = base.device.type == "cuda"
    watch = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])])

    def at_step(step: int, total: int) -> None:
        if step == 1:
            watch.start()
        elif step == total:
            watch.stop()

    ours(base, rows, 1, at_step=at_step)
    time = "self_device_time_total" if on_card else "self_cpu_time_total"
    return by_kind((event.key, getattr(event, time) / 1e6) for event in watch.key_averages())


def by_kind(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of each kind, of (operation, its own seconds)."""
    sums = dict.fromkeys((*KINDS, REST), 0.0)
    for name, seconds in times:
        sums[next((kind for kind, words in KINDS.items() if any(word in name for word in words)), REST)] += seconds
    return sums
