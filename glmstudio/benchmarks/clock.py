"""Processor seconds, of the Trainer's steps too, and the peak of memory of this process. Knows no model."""

import os
import re
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from glmstudio.models.processor import INSTRUCTIONS, instructions

MIB = 2**20


class Clock:
    """Runs from its making. On a CPU it counts the processor's seconds of all threads, so another program's work does
    not count; on CUDA seconds of the wall, after the device has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    def seconds(self) -> float:
        return self._now() - self._start


class Clocked(TrainerCallback):
    """`seconds` from the beginning of the Trainer's first update to the end of its newest."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock = Clock(self._device)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = self._clock.seconds()


def device_name(device: torch.device) -> str:
    """The graphics card's name, or the processor's with those of its instructions that make products fast."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", "cpu")
    return " ".join((name, *(each for each in INSTRUCTIONS if each in instructions())))


def peak_mib(device: torch.device) -> float:
    """The most memory so far: on CUDA what torch held there, else what the process had in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    status = Path("/proc/self/status")
    if status.exists():
        # The other counter of Linux begins at the peak of the program that started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    import resource

    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
