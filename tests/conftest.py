"""Fixtures that the tests share. Nothing here touches the network or the repository's own data."""

import os
from pathlib import Path

import pytest

from glmstudio.environment import prepare

os.environ["HF_HUB_OFFLINE"] = "1"
prepare()


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[1]
