"""A server on the loopback address, from a free port to Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from errno import EADDRNOTAVAIL
from ipaddress import ip_address

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from secateurs.errors import InputError

ADDRESS = "127.0.0.1"
HEAD_S = 10.0  # seconds for the head of a request to arrive
MAX_CONNECTIONS = 256


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower() == "localhost"


def is_every_network(host: str) -> bool:
    """Whether an address to listen on means all addresses of this machine.

    >>> is_every_network("0.0.0.0"), is_every_network("::"), is_every_network("127.0.0.1")
    (True, True, False)
    """
    with contextlib.suppress(ValueError):
        return ip_address(host).is_unspecified
    return False


def in_address(host: str) -> str:
    """A host as it stands in a URL and in the Host header: IPv6 addresses in brackets.

    >>> in_address("::1"), in_address("localhost")
    ('[::1]', 'localhost')
    """
    return f"[{host}]" if ":" in host else host


def listen(port: int = 0, host: str = ADDRESS) -> socket.socket:
    """A socket that listens at `port` of an address of this machine, or at a free one for 0.

    Raises InputError when the port is taken or out of range, or the address is not one.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port: expected 0 to 65535, got {port}")
    if not host:  # which would be every network
        raise InputError("host: expected an address of this machine, got an empty text")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio switches Nagle's algorithm off only where it is, and with it an
    # answer in two parts waits 40 ms for the acknowledgement of the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnicodeError | socket.gaierror) or error.errno == EADDRNOTAVAIL:
            raise InputError(f"host {host}: not an address of this machine ({reason})") from None
        raise InputError(
            f"port {port}: cannot be used ({reason}); --port 0 takes a free one"
        ) from None
    return listener


class PromptProtocol(H11Protocol):
    """HTTP/1.1 over connections that must send a request's head within `HEAD_S` seconds.

    Those that do not, at first or between two requests, are closed: they would be held for good.
    """

    # Requests that had begun when the connection was last looked at; None while one is answered.
    _waited: int | None = 0
    _begun = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the connection every `HEAD_S` seconds."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._look)

    def handle_events(self) -> None:
        """Handle what has arrived, and count the requests."""
        before = self.cycle
        super().handle_events()
        self._begun += self.cycle is not before

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        answering = self._begun > 0 and not self.cycle.response_complete
        if not answering and self._waited == self._begun:
            self.transport.close()
            return
        self._waited = None if answering else self._begun
        self.loop.call_later(HEAD_S, self._look)


def serve(app: Starlette, listener: socket.socket) -> None:
    """Answer requests until Ctrl-C or SIGTERM; requests under way are finished first."""
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=MAX_CONNECTIONS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down and hands the signal on
    finally:
        listener.close()
