"""Fixtures that the tests share. Nothing here touches the network or the repository's own data."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from glmstudio.environment import prepare

if TYPE_CHECKING:
    from glmstudio.data.store import Store

# A worker has torch, and so have the program that it starts and a browser beside them.
BYTES_PER_WORKER = 3 * 2**30
MOST_WORKERS = 8

os.environ["HF_HUB_OFFLINE"] = "1"
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Workers share the processors; what they start inherits this. torch reads it when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // int(workers))))
prepare()


def pytest_xdist_auto_num_workers() -> int:
    """As many workers as there are processors, and memory for."""
    fitting = psutil.virtual_memory().available // BYTES_PER_WORKER
    return max(1, min(os.cpu_count(), fitting, MOST_WORKERS))


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def stores(tmp_path: Path) -> "Iterator[tuple[Store, Store]]":
    """The same database twice, as two processes have it."""
    from glmstudio.data.store import Store

    opened = tuple(Store(f"sqlite:///{tmp_path / 'rows.sqlite'}") for _ in range(2))
    yield opened
    for store in opened:
        store.close()
