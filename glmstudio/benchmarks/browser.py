"""Finds a Chromium and opens pages in it, for the benchmark of the page and for its tests. Knows no page's inside."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glmstudio.errors import StudioError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def executable() -> str | None:
    """A Chromium of this system, else the one that Playwright downloaded, else None."""
    for name in SYSTEM_NAMES:
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless one. Raises StudioError `bench-browser` where Playwright or every Chromium is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise StudioError("bench-browser", missing="playwright") from None
    path = executable()
    if path is None:
        raise StudioError("bench-browser", missing="Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
