"""Access to a server on this machine: only its own page, under its own address.

A page of a foreign site can make a browser send requests to 127.0.0.1. Its Origin header gives it
away; a name that was made to point here (DNS rebinding) shows in the Host header.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")


class Guard:
    """Refuses foreign Host, Origin and Sec-Fetch-Site headers; no answer is cached or framed."""

    def __init__(self, app: ASGIApp, *, port: int, policy: str) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in HOSTS} | ({*HOSTS} if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}
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
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return f"host: expected {' or '.join(sorted(self._hosts))}"
        if any(origin.lower() not in self._origins for origin in headers.getlist("origin")):
            return "origin: only the page of this server is allowed"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "sec-fetch-site: only the page of this server is allowed"
        return None
