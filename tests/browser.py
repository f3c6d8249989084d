"""Finds a Chromium for the page's tests, and as a command gets one: `python tests/browser.py`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome")
APT_PACKAGES = ("chromium", "fonts-noto-cjk")
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


def install() -> int:
    """Debian's packages where this user may install them, else Playwright's own download."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        update = ["apt-get", "update", "-q"]
        packages = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *APT_PACKAGES]
        if all(subprocess.run(command, env=environment).returncode == 0 for command in (update, packages)):
            return 0
    return subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"]).returncode


if __name__ == "__main__":
    if executable() is None and install() != 0:
        sys.exit("No Chromium for the page's tests: install one (apt install chromium) and run this again.")
    print(f"browser: {executable()}")
