"""Puts the page on the network: server, login, share link, browser, end. Knows no tab."""

import os
import secrets
import signal
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr
from starlette.middleware import Middleware

from glmstudio.ui.address import LOOPBACK, Address, own_address
from glmstudio.ui.language import LANGUAGES, i18n, t
from glmstudio.ui.live import LookRoute
from glmstudio.ui.preferences import Preferences
from glmstudio.ui.theme import ICON, build_theme, head

if TYPE_CHECKING:
    from glmstudio.ui.build import App


def login(password: str) -> Callable[[str, str], bool]:
    """One password for all; the name each person gives is the annotator of their rows."""

    def check(user: str, given: str) -> bool:
        return bool(user) and secrets.compare_digest(given.encode(), password.encode())

    return check


def login_message() -> str:
    """For every language, because nobody knows the browser yet; the style shows the page's own."""
    return "".join(f'<span lang="{language}">{t("serve.login", language)}</span>' for language in LANGUAGES)


def launch(blocks: "App", address: Address) -> str:
    """Starts the server on threads of its own and returns its local URL."""
    # Gradio asks itself a thousand times a second whether somebody has clicked; on Windows as seldom as this.
    blocks._queue.sleep_when_free, blocks._queue.progress_update_sleep_when_free = 0.05, 0.1
    _, url, _ = blocks.launch(
        server_name=address.host,
        server_port=address.port,
        share=address.share,
        auth=login(address.password) if address.password else None,
        auth_message=login_message(),
        prevent_thread_lock=True,
        quiet=True,
        pwa=True,
        run_history=False,
        footer_links=[],
        favicon_path=str(ICON),
        ssr_mode=False,
        i18n=i18n(),
        theme=build_theme(),
        app_kwargs={
            "middleware": [
                Middleware(Preferences, language=address.language, head=head()),
                Middleware(LookRoute, live=blocks.live),
            ]
        },
    )
    # Gradio's page for shared links takes its scripts from another host; this one brings them through the tunnel.
    blocks.share = False
    return url


def announce(blocks: gr.Blocks, address: Address, url: str, language: str) -> None:
    """Says in the terminal where the page is and how others reach it."""

    def say(key: str, **params: object) -> None:
        print(t(key, language, **params), flush=True)

    say("serve.ready", url=url)
    if address.host not in LOOPBACK:
        say("serve.network", url=f"http://{own_address()}:{blocks.server_port}")
    if address.share and blocks.share_url:
        say("serve.shared", url=blocks.share_url)
    elif address.share:
        say("serve.share-failed", command=_network_command(address))
    if address.password:
        say("serve.password", password=address.password)
    say("serve.end")


def _network_command(address: Address) -> str:
    return f"python app.py --host 0.0.0.0 --password {address.password}"


def open_browser(url: str) -> None:
    """Opens the page, except where only a text browser could: that would take the terminal."""
    graphical = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if graphical:
        webbrowser.open(url)


def wait(blocks: gr.Blocks) -> None:
    """Blocks until Ctrl+C or a polite kill, then ends the server."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        blocks.server.thread.join()
    except KeyboardInterrupt:
        blocks.close(verbose=False)
