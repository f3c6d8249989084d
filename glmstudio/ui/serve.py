"""Puts the page on the network: address, password, share link, browser, end. Knows no tab."""

import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace

import gradio as gr
from starlette.middleware import Middleware

from glmstudio.errors import StudioError
from glmstudio.ui.language import i18n, t
from glmstudio.ui.preferences import Preferences
from glmstudio.ui.theme import ICON, build_theme, head

FIRST_PORT = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the page is to stand. `port` None: the first free one from 7860 or GRADIO_SERVER_PORT on. `password` empty:
    no login, which holds on this computer only. `language` empty: what each browser asks for."""

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    password: str = ""
    language: str = ""

    @property
    def local(self) -> bool:
        return self.host in LOOPBACK and not self.share


def secured(address: Address) -> Address:
    """The same address, with a made password where others can reach it and none was given."""
    if address.local or address.password:
        return address
    return replace(address, password=secrets.token_urlsafe(9))


def check_port(address: Address) -> None:
    """Raises StudioError `port-taken` (with the next free port) or `address-refused` before anything slow is loaded."""
    if address.port is None:
        return
    try:
        _bind(address.host, address.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise StudioError(
                "address-refused", host=address.host, port=address.port, reason=error.strerror or str(error)
            ) from error
        raise StudioError("port-taken", port=address.port, free=_free_port(address.host, address.port)) from error


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _free_port(host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + 100, 65536)):
        with contextlib.suppress(OSError):
            _bind(host, candidate)
            return candidate
    return FIRST_PORT


def login(password: str) -> Callable[[str, str], bool]:
    """One password for all; the name each person gives is the annotator of their rows."""

    def check(user: str, given: str) -> bool:
        return bool(user) and secrets.compare_digest(given.encode(), password.encode())

    return check


def launch(blocks: gr.Blocks, address: Address) -> str:
    """Starts the server on threads of its own and returns its local URL."""
    _, url, _ = blocks.launch(
        server_name=address.host,
        server_port=address.port,
        share=address.share,
        auth=login(address.password) if address.password else None,
        prevent_thread_lock=True,
        quiet=True,
        pwa=True,
        run_history=False,
        footer_links=[],
        favicon_path=str(ICON),
        ssr_mode=False,
        i18n=i18n(),
        theme=build_theme(),
        app_kwargs={"middleware": [Middleware(Preferences, language=address.language, head=head())]},
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
        say("serve.network", url=f"http://{_own_address()}:{blocks.server_port}")
    if address.share and blocks.share_url:
        say("serve.shared", url=blocks.share_url)
    elif address.share:
        say("serve.share-failed", command=_network_command(address))
    if address.password:
        say("serve.password", password=address.password)
    say("serve.end")


def _network_command(address: Address) -> str:
    return f"python app.py --host 0.0.0.0 --password {address.password}"


def _own_address() -> str:
    """This computer's address in its network. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


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
