"""A Ray cluster for a study: this machine's own, or one that is there already."""

from __future__ import annotations

import functools
import os
import secrets
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.progress import SILENT, Progress
from secateurs.study.trials.processes import num_cores
from secateurs.study.trials.ray_cluster import RayCluster, last_line
from secateurs.study.trials.task import Resources

ANSWER_S = 5.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def _check_address(address: str) -> None:
    """InputError unless something answers at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise InputError("ray: give HOST:PORT of the cluster and run this on one of its nodes")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"ray: expected HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"ray: {address} does not answer ({reason}); is the cluster up?") from None


@functools.cache  # Ray remembers it for as long as the process lives
def _token() -> str:
    return secrets.token_hex(32)


@contextmanager
def _environment(words: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in words}
    os.environ.update(words)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = earlier


@contextmanager
def open_ray(
    address: str,
    resources: Resources,
    *,
    cache: Path | None = None,
    shared_disk: bool = True,
    progress: Progress = SILENT,
) -> Generator[RayCluster]:
    """An executor on the cluster at HOST:PORT, or without an address on a new one of this machine.

    A new one listens on 127.0.0.1, asks for a token of its own, and ends with the block; `cache` is
    its nodes' cache folder. Of a cluster that is there already all settings hold. `shared_disk`
    False has every node sent what it needs, whether or not it sees this machine's files. Raises
    InputError without Ray, when nothing answers, when no node has the resources, and for other
    versions.
    """
    require("ray", "executor ray")
    words = {name: os.environ.get(name, word) for name, word in _ENVIRONMENT.items()}
    if address:
        _check_address(address)
    else:
        # Others of this machine reach 127.0.0.1 too. The token is in no file.
        words |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        if cache is not None:
            words["SECATEURS_CACHE"] = str(cache)
        if resources.cpus > num_cores():
            raise InputError(
                f"trial-cpus: this machine has {num_cores()} cores, a trial asks for "
                f"{resources.cpus}"
            )
    with _environment(words):
        import ray

        if ray.is_initialized():
            raise InputError("ray: this process is connected to a cluster already")
        before = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if not address:
            quiet |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            quiet |= {"num_cpus": num_cores()}
        try:
            ray.init(address=address or "local", **quiet)
        except Exception as error:
            raise InputError(f"ray: {address or 'this machine'}: {last_line(error)}") from None
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray ends the process; we stop and keep
        try:
            crew = RayCluster(resources, shared_disk=shared_disk)
            try:
                crew.check(progress)
                yield crew
            finally:
                crew.close()
        finally:
            ray.shutdown()
