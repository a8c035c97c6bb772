"""Answers of requests as JSON, and what they may name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from secateurs.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """The name of a folder for a saved network; InputError for one that is not plain."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"name: expected letters, digits, dots, dashes and underscores (1 to 64, the first "
            f"a letter or digit), got {name!r:.80}"
        )
    return name


async def answer(do: Callable[..., dict[str, Any]], *given: Any) -> Response:
    """What a function returns, in a thread of its own; its errors as JSON with one line."""
    try:
        return JSONResponse(await run_in_threadpool(do, *given))
    except InputError as error:
        return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)
    except OSError as error:
        reason = f"{error.filename or 'file'}: {error.strerror or error}"
        return JSONResponse({"error": reason}, status_code=500)
