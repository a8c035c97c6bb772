"""Access to a server on this machine: only its own page, under its own address.

A page of a foreign site can make a browser send requests to 127.0.0.1. Its Origin header gives it
away; a name that was made to point here (DNS rebinding) shows in the Host header.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
ANY = "*"


class Guard:
    """Refuses foreign Host, Origin and Sec-Fetch-Site headers; no answer is cached or framed.

    `hosts` are the names under which the server may be asked; "*" takes every name, for a server
    behind another one that checks them. With a `port` that port has to be named as well; without
    it any port will do, as a container is reached through another one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: str,
        port: int | None = None,
        hosts: Collection[str] = HOSTS,
    ) -> None:
        self._app = app
        self._any = ANY in hosts
        self._names = {name.lower() for name in hosts}
        self._port = port
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 with the reason."""
        if scope["type"] != "http":  # the application's start and end; there are no websockets
            await self._app(scope, receive, send)
            return
        reason = self._reason(Headers(scope=scope))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        if reason is not None:
            refused = JSONResponse({"error": reason}, status_code=403)
            await refused(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _reason(self, headers: Headers) -> str | None:
        """Why a request is refused; None when it is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return f"host: expected {self._expected()}"
        own = {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}
        if self._port is not None:
            own = {f"http://{name}" for name in self._hosts()}
        if any(origin.lower() not in own for origin in headers.getlist("origin")):
            return "origin: only the page of this server is allowed"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "sec-fetch-site: only the page of this server is allowed"
        return None

    def _is_own(self, host: str) -> bool:
        if self._port is not None:
            return host.lower() in self._hosts()
        name, mark, port = host.lower().rpartition(":")
        if not mark or not port.isdigit():
            name = host.lower()
        return bool(name) and (self._any or name in self._names)

    def _hosts(self) -> set[str]:
        named = {f"{name}:{self._port}" for name in self._names}
        return named | (self._names if self._port == 80 else set())

    def _expected(self) -> str:
        known = self._names if self._port is None else self._hosts()
        return " or ".join(sorted(known))
