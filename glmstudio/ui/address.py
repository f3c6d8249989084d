"""Where the page stands in the network: host, port, password. Knows no gradio, so that a taken port is said at once."""

import contextlib
import errno
import secrets
import socket
from dataclasses import dataclass, replace

from glmstudio.errors import StudioError

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


def own_address() -> str:
    """This computer's address in its network. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
