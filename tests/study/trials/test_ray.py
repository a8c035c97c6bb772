"""The same study on a real Ray cluster of this machine, whose nodes and driver are killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.errors import InputError
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import seeded_model
from secateurs.study.study import run_study
from secateurs.study.trials.executors import open_executor
from secateurs.study.trials.ray.connection import open_ray
from secateurs.study.trials.store import save_weights
from secateurs.study.trials.task import Resources

pytest.importorskip("ray", reason="needs pip install 'secateurs[ray]'")
# Ray has warnings of its own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]
RUNS = 12


def _config(weights: Path) -> StudyConfig:
    return StudyConfig(
        backbone="squeezenet1_1",
        weights=str(weights),
        depths=(24, 25),
        runs=RUNS,
        scratch_runs=0,
        epochs=1,
        image_size=64,
        views=1,
        batch_size=14,
        device="cpu",
        precision="float32",
    )


class Watching:
    """Progress that does something after some trials."""

    def __init__(self, after: dict[int, Any]) -> None:
        self.after, self.trials, self.notes = after, 0, list[str]()

    def task(self, name: str, total: int, *, done: int = 0) -> Any:
        return nullcontext(lambda steps: None)

    def note(self, text: str) -> None:
        self.notes.append(text)
        if "on validation" in text and text.startswith("depth"):
            self.trials += 1
            self.after.get(self.trials, lambda: None)()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A home and a cache folder of the tests' own; no authentication, since all is on loopback."""
    home = tmp_path_factory.mktemp("home")
    words = {"HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    words |= {"SECATEURS_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    words["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else nodes listen on all addresses
    words["RAY_worker_niceness"] = "0"  # tasks give way to all others by default
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, word in words.items():
            patch.setenv(name, word)
        yield home
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(home: Path) -> Path:
    save_weights(seeded_model("squeezenet1_1", 3, 7), home / "weights.safetensors")
    return home / "weights.safetensors"


@pytest.fixture(scope="module")
def inline(flags: Path, home: Path, weights: Path) -> str:
    """What the study says when all of it runs in this process."""
    out = home / "inline"
    return _plain(run_study(str(flags), _config(weights), out, cache=home / "cache", prune=False))


def _plain(results: dict[str, Any]) -> str:
    """Results without times and places."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            odd = ("timing", "machines")
            return {k: without(v) for k, v in value.items() if k not in odd}
        return [without(one) for one in value] if isinstance(value, list) else value

    return json.dumps(without(results), indent=1)


@contextmanager
def _cluster(num_nodes: int) -> Generator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_node_is_killed_and_another_joins_and_the_results_are_the_same(
    flags: Path, home: Path, weights: Path, inline: str
):
    with _cluster(3) as cluster:
        victim = sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0]
        progress = Watching(
            {
                4: lambda: cluster.remove_node(victim, allow_graceful=False),
                9: lambda: cluster.add_node(num_cpus=1, object_store_memory=100 << 20, wait=False),
            }
        )
        with open_ray(cluster.address, Resources(), progress=progress) as crew:
            results = run_study(
                str(flags),
                _config(weights),
                home / "nodes",
                cache=home / "cache",
                prune=False,
                executor=crew,
                progress=progress,
            )
        assert progress.trials == 2 * RUNS
        assert _plain(results) == inline
        rows = results["machines"]
        assert sum(row["num_trials"] for row in rows) == 2 * RUNS and len(rows) >= 2
        assert not list((home / "nodes" / "trials").glob("*.lease"))

        _driver_killed_twice(cluster.address, flags, home, weights)
    found = json.loads((home / "driver" / "results.json").read_text())
    assert _plain(found) == inline


DRIVER = """
import json, sys
from pathlib import Path
from secateurs.study.setup.config import from_json
from secateurs.study.study import run_study
from secateurs.study.trials.ray.connection import open_ray
from secateurs.study.trials.task import Resources
import torch

torch.set_num_threads(1)
address, data, config, out, cache = sys.argv[1:]
with open_ray(address, Resources()) as crew:
    run_study(
        data,
        from_json(json.loads(config)),
        Path(out),
        cache=Path(cache),
        prune=False,
        executor=crew,
    )
"""


def _driver_killed_twice(address: str, flags: Path, home: Path, weights: Path) -> None:
    """Start the study as a program, kill it twice when some trials are done, then let it end."""
    out = home / "driver"
    words = [address, str(flags), json.dumps(_config(weights).to_json()), str(out)]
    generator = random.Random(time.time_ns())
    done = 0
    for kill in (True, True, False):
        program = subprocess.Popen([sys.executable, "-c", DRIVER, *words, str(home / "cache")])
        until = min(2 * RUNS - 1, done + generator.randint(1, 6))
        while kill and program.poll() is None:
            done = len(list((out / "trials").glob("*.json")))
            if done >= until:
                program.kill()
            time.sleep(0.05)
        code = program.wait(timeout=200)
        assert code == (-9 if kill else 0)
        assert kill == (not (out / "results.json").exists())


def test_a_local_cluster_listens_on_loopback_alone(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    with open_ray("", Resources()) as crew:
        (node,) = crew._nodes()
        assert node["NodeManagerAddress"] == "127.0.0.1"
        hosts = {"127.0.0.1"}
        with socket.socket(type=socket.SOCK_DGRAM) as stream, suppress(OSError):  # no network
            stream.connect(("192.0.2.1", 9))  # which sends nothing
            hosts.add(stream.getsockname()[0])
        for host, port in itertools.product(hosts, ("NodeManagerPort", "ObjectManagerPort")):
            with socket.socket() as stream:
                stream.settimeout(5)
                assert (stream.connect_ex((host, node[port])) == 0) == (host == "127.0.0.1")


@contextmanager
def _started(token: str) -> Generator[str]:
    """The address of a cluster that `ray start` has started, with a home and a token of its own."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: there are sockets in it
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = {"HOME": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    words["PYTHONUNBUFFERED"] = "1"  # its lines are waited for
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"]
    options = ["--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    options += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    options += ["--object-store-memory=80000000"]
    log = Path(folder, "start.log")
    with log.open("wb") as stream:
        head = subprocess.Popen(
            [*command, *options],
            env=os.environ | words,
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text() and time.monotonic() < until:
            assert head.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


OPENED = """
import sys
from secateurs.errors import InputError
from secateurs.study.trials.ray.connection import open_ray
from secateurs.study.trials.task import Resources
try:
    with open_ray(sys.argv[1], Resources()) as crew:
        print("opened", crew.name)
except InputError as error:
    print(error)
"""


def test_a_cluster_with_a_token_takes_whoever_has_it(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_AUTH_MODE")

    def said(token: str) -> str:
        """The answer to a program of its own: Ray keeps a token as long as a process lives."""
        words = [sys.executable, "-c", OPENED, address]
        environment = os.environ | {"RAY_AUTH_TOKEN": token}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150)
        return done.stdout.strip()

    with _started("a" * 64) as address:
        assert "asks for a token: put that of the cluster into RAY_AUTH_TOKEN" in said("")
        assert "refuses the token of RAY_AUTH_TOKEN: the cluster has another one" in said("b" * 64)
        assert said("a" * 64) == "opened ray"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ray:127.0.0.1:1", "127.0.0.1:1 does not answer"),
        ("ray:somewhere", "expected HOST:PORT, got 'somewhere'"),
        ("ray:ray://head:10001", "run this on one of its nodes"),
    ],
)
def test_an_address_that_is_none_or_does_not_answer_is_said(words: str, said: str, tmp_path: Path):
    with pytest.raises(InputError, match=said), open_executor(words, cache=tmp_path):
        pass


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    before = dict(os.environ)
    with pytest.raises(InputError), open_executor("ray:127.0.0.1:1", cache=tmp_path):
        pass
    assert dict(os.environ) == before
