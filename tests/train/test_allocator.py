"""Memory that a run frees stays with the process while it trains, and goes back afterwards."""

import platform
import resource
import threading
from contextlib import suppress

import psutil
import pytest
import torch

from glmstudio.training.allocator import kept_memory

MIB = 2**20
# Larger than any block that glibc keeps by itself, smaller than the heap of a thread that is not the main one.
BLOCK, BLOCKS = 48 * MIB, 4
PAGES = BLOCK * BLOCKS // 4096

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")


def page_faults() -> int:
    """Of a step's blocks, whose like were freed by the steps before; the first few find their places."""
    before = 0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(BLOCK, dtype=torch.uint8) for _ in range(BLOCKS)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_within() -> int:
    with kept_memory():
        return page_faults()


def test_freed_memory_is_used_again() -> None:
    assert faults_within() < PAGES // 20


def test_it_holds_in_a_thread_too() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(faults_within()))
    thread.start()
    thread.join()
    assert found[0] < PAGES // 20


def test_the_memory_goes_back_with_an_error_too() -> None:
    held = 0
    with suppress(RuntimeError), kept_memory():
        page_faults()
        held = psutil.Process().memory_info().rss
        raise RuntimeError
    assert psutil.Process().memory_info().rss < held - BLOCK * BLOCKS // 2
