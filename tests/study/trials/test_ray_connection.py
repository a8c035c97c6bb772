"""What is checked before Ray is asked, and what a cluster of one command leaves behind."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secateurs.errors import InputError
from secateurs.study.trials.executors import open_executor
from secateurs.study.trials.ray import connection
from secateurs.study.trials.ray.connection import SESSION, session_folder


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "is not the head of a Ray cluster"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not the head of a Ray cluster"),
        (bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]), None),
    ],
)
def test_what_answers_and_is_not_ray_is_said_at_once(answer: bytes, said: str | None):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                stream.recv(64)
                stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if said is None:
            connection._check_address(address)
        else:
            with pytest.raises(InputError, match=said):
                connection._check_address(address)
        thread.join()


@pytest.mark.parametrize(
    "address", ["somewhere", ":6379", "10.0.0.1:", "10.0.0.1 :6379", "10.0.0.1:0", "10.0.0.1:65536"]
)
def test_what_is_no_address_is_said(address: str):
    with pytest.raises(InputError, match="expected HOST:PORT, got"):
        connection._check_address(address)


@pytest.mark.parametrize(
    ("mode", "hosts", "said"),
    [
        ("disabled", ("127.0.0.1", "::1"), False),
        ("disabled", ("127.0.0.1", "10.0.0.2"), True),
        ("token", ("10.0.0.2",), False),
        (None, ("10.0.0.2",), False),
    ],
)
def test_a_cluster_that_asks_for_no_token_is_said_unless_all_of_it_is_on_loopback(
    mode: str | None, hosts: tuple[str, ...], said: bool
):
    notes: list[str] = []

    class Lines:
        def task(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

        def note(self, text: str) -> None:
            notes.append(text)

    nodes = [{"NodeManagerAddress": host, "Alive": True} for host in hosts]
    nodes.append({"NodeManagerAddress": "10.0.0.9", "Alive": False})
    connection._warn_if_open(SimpleNamespace(nodes=lambda: nodes), mode, Lines())
    assert [("can run programs on its nodes" in note) for note in notes] == [True] * said


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("secateurs.extras.find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"executor ray needs ray: pip install 'secateurs\[ray\]'"),
        open_executor("ray", cache=tmp_path),
    ):
        pass


def test_the_folder_of_a_cluster_goes_with_it_and_those_of_killed_drivers_too(tmp_path: Path):
    other = tmp_path / "others"
    other.mkdir()
    with session_folder(tmp_path) as living:
        dead = tmp_path / f"{SESSION}dead"
        (dead / "session" / "logs").mkdir(parents=True)
        for path in (dead, living):
            os.utime(path, (1000, 1000))
        with session_folder(tmp_path) as mine:
            assert not dead.exists() and living.is_dir() and mine.is_dir()
            (mine / "session").mkdir()
        assert not mine.exists() and living.is_dir()
    assert list(tmp_path.iterdir()) == [other]


def test_a_value_of_ray_is_replaced_for_a_while_where_there_is_one():
    with connection._replaced("socket", "SOMAXCONN", 1), connection._replaced("socket", "none", 1):
        assert socket.SOMAXCONN == 1 and not hasattr(socket, "none")
    assert socket.SOMAXCONN > 1 and not hasattr(socket, "none")
