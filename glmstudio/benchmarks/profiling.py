"""Where the time of our own training goes: seconds of each kind of operation in the optimizer steps of a run.

Knows the names of torch's operations, no model and no other way to train.
"""

from collections.abc import Iterable, Sequence

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from glmstudio.benchmarks.clock import Clock
from glmstudio.benchmarks.ways import ours
from glmstudio.data.example import Example
from glmstudio.models.base import Base

# By the words that an operation's name has; the first that fits counts. What is no operation of torch's own is Python,
# autograd and the calls themselves.
KINDS = {
    # The softmax of the loss bears the same name.
    "attention, softmax": ("bmm", "attention", "aten::_softmax", "ShortSample", "Flash"),
    "linear layers": ("::mm", "addmm", "linear", "gemm", "4bit"),
    "copies": ("copy_", "::cat", "fill_", "zero_", "clone", "index", "embedding", "Memcpy", "Memset"),
    "element by element": ("aten::",),
}
REST = "python, autograd, calls"
# Of a graphics card, the time in which it waits for the processor to call the next kernel.
IDLE = "card idle"


def profiled(base: Base, rows: Sequence[Example]) -> dict[str, float]:
    """Seconds of each of `KINDS` and of the rest over the steps of one epoch, the first step left out; of a graphics
    card with `IDLE`, too, which the profiler itself makes longer."""
    on_card = base.device.type == "cuda"
    watch = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])])
    clocks: list[Clock] = []
    whole = 0.0

    def at_step(step: int, total: int) -> None:
        nonlocal whole
        if step == 1:
            clocks.append(Clock(base.device))
            watch.start()
        elif step == total:
            whole = clocks[0].seconds()
            watch.stop()

    ours(base, rows, 1, at_step=at_step)
    # Each kernel is there twice: by itself, and in the time that its operation took on the card.
    found = [event for event in watch.key_averages() if event.device_type == DeviceType.CPU]
    time = "self_device_time_total" if on_card else "self_cpu_time_total"
    sums = by_kind((event.key, getattr(event, time) / 1e6) for event in found)
    return sums | ({IDLE: max(0.0, whole - sum(sums.values()))} if on_card else {})


def by_kind(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of each kind, of (operation, its own seconds)."""
    sums = dict.fromkeys((*KINDS, REST), 0.0)
    for name, seconds in times:
        sums[next((kind for kind, words in KINDS.items() if any(word in name for word in words)), REST)] += seconds
    return sums
