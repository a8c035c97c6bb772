"""A Ray cluster for a study: this machine's own, or one that is there already."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.leftovers import SUFFIX, is_temporary, sweep, temporary_prefix
from secateurs.progress import SILENT, Progress
from secateurs.study.trials.processes import num_cores
from secateurs.study.trials.ray.failures import last_line
from secateurs.study.trials.ray.tasks import RayCluster
from secateurs.study.trials.ray.tokens import ANSWER_S, auth_mode, is_set
from secateurs.study.trials.task import ATTEMPTS, Resources

SESSION = "secateurs-ray-"
GONE_S = 5.0
YOUNG_S = 60.0  # age below which a folder may not yet say whose it is
LONGEST = 20  # bytes of the path where it lies: a socket in it has at most 103
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(ATTEMPTS),  # else without end
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of tasks that nobody waits for any more
}
# Ray takes the address of the network for 127.0.0.1, and its servers then listen on all addresses,
# unless this says that there will be no second machine.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def _check_address(address: str) -> tuple[str, int]:
    """Host and port; InputError unless something answers there as Ray does.

    Ray itself waits for minutes for what does not, and may end the process then.
    """
    host, _, digits = address.rpartition(":")
    if address.startswith("ray://"):
        raise InputError("ray: give HOST:PORT of the cluster and run this on one of its nodes")
    port = int(digits) if digits.isdecimal() and len(digits) < 6 else 0
    host = host.strip("[]")
    if not host or not 0 < port < 65536 or any(map(str.isspace, address)):
        raise InputError(f"ray: expected HOST:PORT, got {address!r}")
    try:
        stream = socket.create_connection((host, port), ANSWER_S)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"ray: {address} does not answer ({reason}); is the cluster up?") from None
    with stream:
        if not is_set("RAY_USE_TLS") and not _speaks_http2(stream):
            raise InputError(
                f"ray: what answers at {address} is not the head of a Ray cluster; its port is the "
                "one of `ray start --head`, 6379 by default"
            )
    return host, port


def _speaks_http2(stream: socket.socket) -> bool:
    """Whether the other side begins with a frame of settings, as every gRPC server does."""
    head = b""
    with contextlib.suppress(OSError):
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while len(head) < 4 and (part := stream.recv(9)):
            head += part
    return head[3:4] == bytes([4])


def _warn_if_open(ray: Any, mode: str | None, progress: Progress) -> None:
    """Say so when others may run programs on the cluster: where its nodes listen, not where we are.

    A cluster that was started without an address listens on all those of its machine.
    """
    hosts = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]
    if mode == "disabled" and not all(host.startswith("127.") or host == "::1" for host in hosts):
        progress.note(
            "ray: this cluster asks for no token: whoever reaches it can run programs on its nodes"
        )


def _heed_environment() -> None:
    """Have Ray look at its settings again, which it keeps from its first use in a process."""
    with contextlib.suppress(ImportError, AttributeError):  # of versions without tokens
        raylet: Any = import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


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
def _replaced(module: str, name: str, value: Any) -> Generator[None]:
    """Another value for what a module of Ray has, where it has it."""
    owner: Any = import_module(module)
    before = getattr(owner, name, None)
    if before is None:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def session_folder(place: Path) -> Generator[Path]:
    """A folder for the logs and sockets of a cluster that ends with the block, and goes with it.

    What killed drivers have left in `place` is removed.
    """
    for path in place.glob(f"{SESSION}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or time.time() - found.st_mtime < YOUNG_S:
                continue
            sweep(path, deep=False, unnamed=False)
            if not any(is_temporary(one.name) for one in path.iterdir()):  # its driver is gone
                shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SESSION, dir=place))
    try:
        handle, _ = tempfile.mkstemp(prefix=temporary_prefix("driver"), suffix=SUFFIX, dir=folder)
        os.close(handle)
        yield folder
    finally:
        until = time.monotonic() + GONE_S
        while folder.exists() and time.monotonic() < until:  # its processes write their last lines
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                time.sleep(0.1)


def _place() -> Path:
    """The folder for temporary files, or /tmp where its name is too long for sockets in it."""
    place = Path(tempfile.gettempdir())
    short = len(os.fsencode(place)) <= LONGEST
    return place if short or not Path("/tmp").is_dir() else Path("/tmp")


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
    mode: str | None = None
    if address:
        mode = auth_mode(*_check_address(address), address)
        if mode is not None:
            words["RAY_AUTH_MODE"] = mode
    else:
        # Others of this machine reach 127.0.0.1 too. The token is in no file.
        words |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token(), **_LOOPBACK}
        if cache is not None:
            words["SECATEURS_CACHE"] = str(cache)
        if resources.cpus > num_cores():
            raise InputError(
                f"trial-cpus: this machine has {num_cores()} cores, a trial asks for "
                f"{resources.cpus}"
            )
    with _environment(words), ExitStack() as stack:
        import ray

        if ray.is_initialized():
            raise InputError("ray: this process is connected to a cluster already")
        before = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if not address:
            quiet |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            folder = stack.enter_context(session_folder(_place()))
            quiet |= {"num_cpus": num_cores(), "_temp_dir": str(folder)}
            # Read when Ray was imported, which may have been before.
            constants = "ray._private.ray_constants"
            stack.enter_context(_replaced(constants, "ENABLE_RAY_CLUSTER", False))
        _heed_environment()
        # What Ray prints of lost workers would be among results; we say what was lost ourselves.
        quietly = _replaced("ray._private.worker", "print_to_stdstream", lambda *_, **__: None)
        stack.enter_context(quietly)
        try:
            ray.init(address=address or "local", **quiet)
        except Exception as error:
            raise InputError(f"ray: {address or 'this machine'}: {last_line(error)}") from None
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray ends the process; we stop and keep
        try:
            _warn_if_open(ray, mode, progress)
            crew = RayCluster(resources, shared_disk=shared_disk)
            try:
                crew.check(progress)
                yield crew
            finally:
                crew.close()
        finally:
            ray.shutdown()
