"""Bodies of requests, read within a limit of bytes and time, and refusals as JSON."""

from __future__ import annotations

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

BODY_S = 30.0  # seconds for a body to arrive


def kind_of(request: Request) -> str:
    """The type that a request says its body has, without parameters, in lower case."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def check_kind(request: Request, kind: str) -> None:
    """Refuse a body of another type.

    A page of another site cannot send every kind without asking first, which is refused.
    """
    if kind_of(request) != kind:
        raise HTTPException(415, f"content-type: expected {kind}")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body of a request, which may not exceed `limit` bytes."""
    told = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,15}", told) or int(told) > limit:
        raise HTTPException(413, too_large(limit))
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise HTTPException(413, too_large(limit))
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"body: not all of it within {BODY_S:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "body: incomplete") from None
    return b"".join(parts)


def too_large(limit: int) -> str:
    """What is said of a body above the limit."""
    size = f"{limit / 1e6:g} MB" if limit >= 1e6 else f"{limit} bytes"
    return f"body: more than the limit of {size}"


async def refusal(request: Request, error: Exception) -> Response:
    """An HTTPException as JSON with one line."""
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": error.detail}, status_code=error.status_code, headers=error.headers
    )
