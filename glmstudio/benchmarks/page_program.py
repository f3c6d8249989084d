"""The real program in a process of its own and pages of it in a browser, with the processor time that each takes.
Knows the page's `elem_id`s, no measurement."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil

from glmstudio.errors import StudioError
from glmstudio.workspace import repository_root

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TABS = ("annotate", "train")
# Milliseconds for what must come: a large dataset is checked meanwhile.
PATIENCE = 600_000
# What is there once a tab has all that it shows.
_SHOWN = {"annotate": "#annotate-table tr[data-id]", "train": "#train-needs p[title]"}
_QUIET = 0.15


class Program:
    """`python app.py` on a free port; it ends with the `with` that `running` gives."""

    def __init__(self, root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = root / "program.log"
        command = [sys.executable, "app.py", "--no-browser", "--port", str(self.port), "--root", str(root), *arguments]
        # A second start in the same folder goes on below what the first one has said.
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                command, cwd=repository_root(), env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_up(self) -> None:
        """Until the page answers and the base is there, whose loading takes all of a core. Raises StudioError
        `bench-failed` where the program ends instead."""
        while not self.answers():
            if self.process.poll() is not None:
                said = self.log.strip().splitlines()
                raise StudioError("bench-failed", way="app.py", reason=(said or [""])[-1])
            time.sleep(0.1)
        while max(shares([[self.process]], 1.0)[0] for _ in range(4)) > _QUIET:
            pass

    def answers(self) -> bool:
        """Whether the page is there."""
        try:
            return httpx.get(self.url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE / 1000)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(root: Path) -> Iterator[Program]:
    program = Program(root)
    try:
        program.wait_until_up()
        yield program
    finally:
        program.stop()


@contextmanager
def opened(browser: "Browser", program: Program, count: int = 1, tab: str = "annotate") -> Iterator[list["Page"]]:
    """Pages of that many browsers' own, each in a process of its own, once `tab` shows everything."""
    contexts = [browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800}) for _ in range(count)]
    try:
        pages = [context.new_page() for context in contexts]
        for page in pages:
            page.set_default_timeout(PATIENCE)
            page.goto(program.url)
        for page in pages:
            open_tab(page, tab)
        yield pages
    finally:
        for context in contexts:
            context.close()


def open_tab(page: "Page", tab: str) -> None:
    page.locator(f"#tab-{tab}-button").click()
    page.locator(_SHOWN[tab]).first.wait_for()


def renderers() -> list[psutil.Process]:
    """The processes that draw this program's pages."""
    return [child for child in psutil.Process().children(recursive=True) if _draws(child)]


def _draws(process: psutil.Process) -> bool:
    try:
        return "--type=renderer" in process.cmdline()
    except psutil.Error:
        return False


def spent(processes: Sequence[psutil.Process]) -> float:
    """Processor seconds of the processes and their children up to now."""
    total = 0.0
    for process in processes:
        for each in (process, *process.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def shares(groups: Sequence[Sequence[psutil.Process]], seconds: float) -> list[float]:
    """For each group of processes the share of a core that it takes in the `seconds` to come; 1 is a whole core."""
    before, begin = [spent(group) for group in groups], time.perf_counter()
    time.sleep(seconds)
    passed = time.perf_counter() - begin
    return [(spent(group) - former) / passed for group, former in zip(groups, before, strict=True)]
