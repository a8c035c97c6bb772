"""Whether a Ray cluster asks for a token, and whether it takes the one that there is here.

Ray sends no token unless `RAY_AUTH_MODE=token`, tries for 20 s where it is refused, and says then
only that it could not connect. So the head is asked first, with one small call of its gRPC service.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from secateurs.errors import InputError

ANSWER_S = 5.0
MODES = ("token", "disabled")
WHERE = "RAY_AUTH_TOKEN, a file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _GOODBYE = 0, 1, 3, 4, 7  # types of frames
_END_STREAM, _END_HEADERS = 1, 4
_REFUSED = (b"grpc-status\x0216", b"InvalidAuthToken")  # 16: unauthenticated
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Token:
    """A token, and in words where it was found."""

    text: str
    source: str


def find_token() -> Token | None:
    """The token that Ray would take, from the first of its three places that has one."""
    text = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if text:
        return Token(text, "RAY_AUTH_TOKEN")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "").strip()
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if named:
            raise InputError(f"RAY_AUTH_TOKEN_PATH: there is no file {path}") from None
        return None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(f"ray: {path} cannot be read ({reason})") from None
    return Token(text, str(path)) if text else None


def auth_mode(host: str, port: int, address: str) -> str | None:
    """`token` where a cluster asks for one and takes ours, `disabled` where it asks for none.

    Raises InputError where it refuses what there is here. None, for Ray to find out, under TLS,
    with tokens of Kubernetes, and for a head that does not answer the call.
    """
    asked = os.environ.get("RAY_AUTH_MODE", "").strip().lower()
    if asked and asked not in MODES:
        raise InputError(f"RAY_AUTH_MODE: expected token or disabled, got {asked!r}")
    if is_set("RAY_USE_TLS") or is_set("RAY_ENABLE_K8S_TOKEN_AUTH"):
        return None
    open_to_all = accepts(host, port)
    if open_to_all is None:
        return None
    if open_to_all:
        return "disabled"
    if asked == "disabled":
        raise InputError(f"ray: {address} asks for a token, and RAY_AUTH_MODE=disabled sends none")
    token = find_token()
    if token is None:
        raise InputError(f"ray: {address} asks for a token: put that of the cluster into {WHERE}")
    if accepts(host, port, token.text) is False:
        raise InputError(
            f"ray: {address} refuses the token of {token.source}: the cluster has another one"
        )
    return "token"


def accepts(host: str, port: int, token: str = "") -> bool | None:
    """Whether the head of a cluster answers a call with this token, or without one.

    None where it does not say.
    """
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": _CALL,
        ":authority": f"{host}:{port}",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    if token:
        headers["authorization"] = f"Bearer {token}"
    words = b"".join(b"\0" + _string(name) + _string(value) for name, value in headers.items())
    call = (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, words)
        + _frame(_DATA, _END_STREAM, 1, bytes(5))  # a message of no bytes
    )
    try:
        with socket.create_connection((host, port), ANSWER_S) as stream:
            stream.sendall(call)
            with stream.makefile("rb") as answer:
                return _answered(answer)
    except OSError:
        return None


def _answered(answer: BinaryIO) -> bool | None:
    left = _MOST_BYTES
    while len(head := answer.read(9)) == 9:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        left -= length
        if kind in (_RESET, _GOODBYE) or left < 0:
            return None
        data = answer.read(length)
        if kind == _HEADERS and any(word in data for word in _REFUSED):
            return False
        if kind == _HEADERS and flags & _END_STREAM:
            return True
    return None


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(data).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + data


def _string(text: str) -> bytes:
    """A string literal of HPACK without compression (RFC 7541, section 5.2)."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, rest = bytearray([127]), len(data) - 127
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + data


def is_set(name: str) -> bool:
    """Whether a switch of Ray is on in the environment."""
    return os.environ.get(name, "").lower() in ("1", "true")
