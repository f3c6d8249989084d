"""Gets a Chromium for the page's tests where there is none: `python -m tests.browser`."""

import os
import shutil
import subprocess
import sys

from glmstudio.benchmarks.browser import executable

APT_PACKAGES = ("chromium", "fonts-noto-cjk")


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
