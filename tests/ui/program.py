"""Starts the real program for a test and drives it: one process, one browser page, the log and the console kept."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page

from glmstudio.benchmarks import page_program

# Milliseconds to wait for what must come: no test asks how fast, and the machine may be doing something else.
PATIENCE = 300_000


class Program(page_program.Program):
    """The one of the page's benchmark; what it prints is in `log` at once."""

    def __init__(self, root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        surroundings = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}
        super().__init__(root, *arguments, environment=surroundings)

    def wait_until_up(self) -> float:
        """Seconds until the page answered."""
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE / 1000:
            assert self.process.poll() is None, self.log
            if self.answers():
                return time.monotonic() - begin
        raise AssertionError(f"the page did not answer:\n{self.log}")


@contextmanager
def running(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    program = Program(root, *arguments, environment=environment)
    try:
        program.wait_until_up()
        yield program
    finally:
        program.stop()
    assert "Traceback" not in program.log


@contextmanager
def opened(browser: Browser, program: Program, language: str = "zh-CN", **options: object) -> Iterator[Page]:
    """A page of the program in its own browser context; an uncaught error in the console fails the test."""
    context = browser.new_context(locale=language, viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(PATIENCE)
    page.goto(program.url)
    page.locator("#tab-annotate-button").wait_for()
    try:
        yield page
    finally:
        context.close()
    assert errors == []


def box(page: Page, elem_id: str) -> Locator:
    """The text field inside the component `elem_id`."""
    return page.locator(f"#{elem_id} textarea, #{elem_id} input").first


def points(page: Page) -> int:
    """How many points the first curve of the chart has."""
    return page.evaluate("() => document.querySelector('#train-chart .js-plotly-plot')?.data?.[0]?.x?.length ?? 0")


def wait_for_text(page: Page, elem_id: str, pattern: str) -> str:
    """Waits until the component's text matches `pattern` and gives the text."""
    from playwright.sync_api import expect

    locator = page.locator(f"#{elem_id}")
    expect(locator).to_contain_text(re.compile(pattern))
    return locator.inner_text()
