"""What a head says of tokens, and what follows from it; the head is a double that speaks HTTP/2."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secateurs.errors import InputError
from secateurs.study.trials.ray.tokens import accepts, auth_mode, find_token

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No token, and a home folder without one."""
    for name in (*NAMES, "RAY_ENABLE_K8S_TOKEN_AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def _answer(words: bytes, *, flags: int = 5) -> bytes:
    return SETTINGS + len(words).to_bytes(3, "big") + bytes([1, flags, 0, 0, 0, 1]) + words


# As Ray 2.60 answers, HPACK without compression.
REFUSED = _answer(
    b"\x88@\x0ccontent-type\x10application/grpc\0\x0bgrpc-status\x0216\0\x0cgrpc-message\x10"
    b"InvalidAuthToken"
)
TAKEN = _answer(b"\x88", flags=4) + _answer(b"\0\x0bgrpc-status\x010")


@contextmanager
def _head(token: str | None) -> Generator[int]:
    """The port of a head that asks for a token, or for none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    stream, _ = server.accept()
                except OSError:
                    return
                with stream:
                    seen = stream.recv(1 << 16)
                    wanted = f"authorization{chr(len(token or '') + 7)}Bearer {token}".encode()
                    stream.sendall(TAKEN if token is None or wanted in seen else REFUSED)
                    stream.recv(1)  # until the other side has gone

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _mode(port: int) -> str | None:
    return auth_mode("127.0.0.1", port, f"127.0.0.1:{port}")


def test_the_token_is_looked_for_where_ray_looks(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_token() is None
    own = home / ".ray" / "auth_token"
    own.parent.mkdir()
    own.write_text("one\n")
    found = find_token()
    assert found is not None and (found.text, found.source) == ("one", str(own))
    (home / "other").write_text(" two ")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    found = find_token()
    assert found is not None and found.text == "two"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "three")
    found = find_token()
    assert found is not None and (found.text, found.source) == ("three", "RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "none"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH: there is no file"):
        find_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home))
    with pytest.raises(InputError, match=r"cannot be read"):
        find_token()


def test_a_token_is_sent_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    with _head("a" * 64) as port:
        with pytest.raises(InputError, match=r"asks for a token: put that of the cluster into RAY"):
            _mode(port)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
        with pytest.raises(InputError, match="refuses the token of RAY_AUTH_TOKEN: the cluster"):
            _mode(port)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
        assert _mode(port) == "token"
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.raises(InputError, match="RAY_AUTH_MODE=disabled sends none"):
            _mode(port)
        monkeypatch.setenv("RAY_USE_TLS", "1")
        assert _mode(port) is None


def test_no_token_is_sent_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    with _head(None) as port:
        assert _mode(port) == "disabled"
        monkeypatch.setenv("RAY_AUTH_MODE", "token")  # there need not be one
        assert _mode(port) == "disabled"
        monkeypatch.setenv("RAY_AUTH_MODE", "tokken")
        with pytest.raises(InputError, match="expected token or disabled, got 'tokken'"):
            _mode(port)


@pytest.mark.parametrize(
    "answer", [b"", SETTINGS, bytes([0, 0, 0, 7, 0, 0, 0, 0, 0]), b"\xff\xff\xff\x01"]
)
def test_a_head_that_does_not_say_leaves_it_to_ray(answer: bytes):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                stream.recv(1 << 16)
                stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert accepts("127.0.0.1", server.getsockname()[1]) is None
        thread.join()
    assert accepts("127.0.0.1", server.getsockname()[1] if server.fileno() > 0 else 1) is None


def test_a_long_token_has_its_length_in_several_bytes():
    from secateurs.study.trials.ray.tokens import _string

    assert _string("a" * 126) == b"\x7e" + b"a" * 126
    assert _string("a" * 127) == b"\x7f\x00" + b"a" * 127
    assert _string("a" * 1337) == b"\x7f\xba\x09" + b"a" * 1337  # 1210 = 58 + 9 * 128
