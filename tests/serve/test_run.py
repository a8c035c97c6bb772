"""The server's process: ports, Ctrl-C, connections that send nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from secateurs.serve.run import listen

SERVER = """
from starlette.applications import Starlette
from secateurs.serve.run import listen, serve
listener = listen()
print(listener.getsockname()[1], flush=True)
serve(Starlette(), listener)
print("ended")
"""


def test_ctrl_c_ends_it_quietly():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert caller.recv(12) == b"HTTP/1.1 404"
            process.send_signal(signal.SIGINT)  # with a caller that stays connected
            rest, complaints = process.communicate(timeout=60)
    assert (process.returncode, rest, complaints) == (0, "ended\n", "")


@contextmanager
def ending(process: subprocess.Popen[str]) -> Generator[None]:
    """End a process that a failing test would wait for."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


SLOW = SERVER.replace("listener = listen", "run.HEAD_S = 0.3\nlistener = listen").replace(
    "from starlette", "from secateurs.serve import run\nfrom starlette", 1
)


def test_connections_that_send_no_whole_head_are_closed_and_others_are_answered():
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process, ending(process):
        assert process.stdout is not None
        port = int(process.stdout.readline())
        whole = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        silent, half, second, honest = (
            socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(4)
        )
        with silent, half, second, honest:
            half.sendall(whole[:-2])
            second.sendall(whole)
            assert second.recv(12) == b"HTTP/1.1 404"
            second.sendall(whole[:-2])
            honest.sendall(whole)
            assert honest.recv(12) == b"HTTP/1.1 404"
            assert silent.recv(1) == b"" and half.recv(1) == b""
            while second.recv(4096):
                pass
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("ended\n", "")


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio switches Nagle's algorithm off for connections of a socket whose protocol is TCP."""
    delays: list[int] = []

    class Asked(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted = transport.get_extra_info("socket")
            delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def ask() -> None:
        with listen() as listener:
            port = listener.getsockname()[1]
            server = await asyncio.get_running_loop().create_server(Asked, sock=listener)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.read()
            writer.close()
            server.close()

    # In a thread of its own: another test may have left an event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, ask()).result()
    assert len(delays) == 1 and delays[0] != 0
