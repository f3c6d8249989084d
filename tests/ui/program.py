"""Starts the real program for a test and drives it: one process, one browser page, the log and the console kept."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
# Milliseconds to wait for what must come: no test asks how fast, and the machine may be doing something else.
PATIENCE = 300_000


class Program:
    """`python app.py` on a free port with its own root; `log` is what it printed."""

    def __init__(self, root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_path = root / "program.log"
        self._log = self._log_path.open("ab")
        command = [sys.executable, "app.py", "--no-browser", "--port", str(self.port), "--root", str(root), *arguments]
        surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=surroundings, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )

    def wait_until_up(self) -> float:
        """Seconds until the page answered."""
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE / 1000:
            assert self._process.poll() is None, self.log
            try:
                if httpx.get(self.url).status_code == 200:
                    return time.monotonic() - begin
            except httpx.TransportError:
                continue
        raise AssertionError(f"the page did not answer:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE / 1000)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


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
