"""One headless Chromium for all tests of the page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from glmstudio.benchmarks.browser import chromium
from tests.ui.program import PATIENCE

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
