"""Tasks on a Ray cluster that this process is connected to."""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from safetensors.torch import load, save

from secateurs.errors import InputError
from secateurs.files import atomic_path
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.trials.contents import Content
from secateurs.study.trials.ray.board import BoardActor, News
from secateurs.study.trials.ray.failures import last_line, loss, lost_errors
from secateurs.study.trials.ray.outputs import RayOutputs
from secateurs.study.trials.ray.ray_worker import (
    PART_BYTES,
    hello,
    run_outputs,
    run_task,
    tidy,
)
from secateurs.study.trials.task import (
    ATTEMPTS,
    Answer,
    Attempt,
    Board,
    Place,
    Resources,
    Task,
    Tensors,
    trouble,
)
from secateurs.study.trials.worker import STATE, other_versions, own_versions

LOOK_S = 0.5
NODES_S = 2.0  # between looks at which nodes there are
HELLO_S = 120.0
PATIENT_S = 10.0  # after which it is said that nodes are waited for
TIDY_S = 5.0
STOP_S = 60.0
SLOW = 2.0  # times the median: a task that takes longer is begun once more where there is room
SLOW_S = 30.0  # and longer than this


@dataclass
class _Running:
    """An attempt on the cluster, with the reference of its tensors."""

    attempt: Attempt
    tensors: Any
    started: float
    node: str = ""


class RayCluster:
    """Runs tasks on a Ray cluster that this process is connected to."""

    name = "ray"
    passes_outputs = True
    sees_states = False

    def __init__(self, resources: Resources, *, shared_disk: bool = True) -> None:
        self.resources = resources
        self._ray: Any = import_module("ray")  # which is only partly annotated
        for part in ("ray.exceptions", "ray.util.scheduling_strategies"):
            import_module(part)
        self._session = secrets.token_hex(6)
        self._shared_disk = shared_disk
        self._parts: dict[str, list[Any]] = {}
        self._names: dict[str, str] = {}
        self._room, self._looked = 0, 0.0
        self._lengths: list[float] = []
        own = self._ray.get_runtime_context().get_node_id()
        self._board: Any = (
            self._ray.remote(BoardActor).options(num_cpus=0, **self._on(own)).remote()
        )
        self._news = News(self._ray, self._board)
        self._task: Any = self._ray.remote(run_task).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_retries=0,  # what is lost is said, and run again by us
            num_returns=2,
            scheduling_strategy="SPREAD",
        )
        make: Any = self._ray.remote(run_outputs)

        def made_on(node: str) -> Any:
            """What makes outputs on a node, and anywhere once more when they are lost with it."""
            return make.options(
                num_cpus=0, num_returns=2, max_retries=ATTEMPTS, **self._on(node, soft=True)
            )

        self._outputs = RayOutputs(self._ray, made_on)

    def check(self, progress: Progress) -> None:
        """Refuse a cluster without room for one task, or with other versions on a node."""
        nodes = self._nodes()
        if self._look(nodes) == 0:
            largest = max(
                (node["Resources"] for node in nodes),
                key=lambda has: (has.get("GPU", 0), has.get("CPU", 0)),
                default={},
            )
            has = f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
            raise InputError(
                f"ray: no node has {self.resources.words()} for a trial; the largest has {has}"
            )
        asked = {
            self._ray.remote(hello)
            .options(num_cpus=0, max_retries=0, **self._on(node["NodeID"]))
            .remote(): node["NodeID"]
            for node in nodes
        }
        ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=PATIENT_S)
        if late:
            number = "1 node" if len(late) == 1 else f"{len(late)} nodes"
            progress.note(f"ray: waiting for {number} to start Secateurs")
            rest = HELLO_S - PATIENT_S
            ready, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=rest)
        for ref in ready:
            name = self._names[asked[ref]]
            try:
                odd = other_versions(name, self._ray.get(ref)["versions"], own_versions())
            except lost_errors(self._ray):
                continue
            except Exception as error:
                odd = f"{name} cannot run Secateurs ({last_line(error)}); install it on all nodes"
            if odd:
                raise InputError(f"ray: {odd}")
        for ref in late:
            progress.note(f"ray: {self._names[asked[ref]]} has not answered yet")

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Progress = SILENT
    ) -> Generator[tuple[Task, Answer]]:
        """See `Executor`."""
        running: dict[Any, _Running] = {}
        again: list[Attempt] = []
        with Board.open(progress) as board:
            try:
                while True:
                    stop.check()
                    self._fill(tasks, again, running, progress)
                    if not running:
                        return
                    ready, _ = self._ray.wait(list(running), timeout=LOOK_S)
                    self._hear(running, board)
                    for ref in ready:
                        yield from self._ended(ref, running, again, board, progress)
            except BaseException as error:
                self._cancel(running, wait=stop.requested)
                if isinstance(error, (self._ray.exceptions.RayError, ConnectionError)):
                    raise InputError(
                        f"ray: the cluster is lost ({last_line(error)}). What was done is kept: "
                        "run the command again"
                    ) from None
                raise

    def _fill(
        self,
        tasks: Iterator[Task],
        again: list[Attempt],
        running: dict[Any, _Running],
        progress: Progress,
    ) -> None:
        if time.monotonic() - self._looked > NODES_S:
            self._look(self._nodes())
        while len(running) <= self._room:  # one more than there is room for, which starts at once
            attempt = again.pop() if again else None
            if attempt is None:
                task = next(tasks, None)
                if task is None:
                    self._again_if_slow(running, progress)
                    return
                attempt = Attempt(task)
            self._submit(attempt, running)

    def _submit(self, attempt: Attempt, running: dict[Any, _Running]) -> None:
        task = attempt.task
        words, parts = self._sent(task)
        given = self._outputs.ready(task.outputs)
        ref, tensors = self._task.remote(words, parts, self._board, given)
        running[ref] = _Running(attempt, tensors, time.monotonic())

    def _sent(self, task: Task) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """What goes to a node with a task."""
        parts = {
            file.sha256: self._parts[file.sha256]
            for file in task.files
            if file.sha256 in self._parts
        }
        words = task.to_json() | {
            "cpus": self.resources.cpus,
            "versions": own_versions(),
            "session": self._session,
            "shared_disk": self._shared_disk,
        }
        return words, parts

    def _again_if_slow(self, running: dict[Any, _Running], progress: Progress) -> None:
        """Begin a task once more that takes far longer than others, where there is room."""
        keys = [one.attempt.task.key for one in running.values()]
        if len(self._lengths) < 3 or len(running) >= self._room:
            return
        limit = max(SLOW_S, SLOW * statistics.median(self._lengths))
        now = time.monotonic()
        for one in list(running.values()):
            if now - one.started > limit and keys.count(one.attempt.task.key) == 1:
                name = one.attempt.task.name
                progress.note(f"{name}: slow on {self._named(one.node)}; begun elsewhere as well")
                self._submit(one.attempt, running)
                return

    def _ended(
        self,
        ref: Any,
        running: dict[Any, _Running],
        again: list[Attempt],
        board: Board,
        progress: Progress,
    ) -> Generator[tuple[Task, Answer]]:
        one = running.pop(ref, None)
        if one is None:  # its twin was faster
            return
        attempt, seconds = one.attempt, time.monotonic() - one.started
        key = attempt.task.key
        twins = [other for other, its in running.items() if its.attempt.task.key == key]
        why, answer = "", dict[str, Any]()
        try:
            answer = self._ray.get(ref)
            why = trouble(answer, self._named(answer["node"]))
        except lost_errors(self._ray) as error:
            where = f" on {self._named(one.node)}" if one.node else ""
            why = loss(error, where)
            if attempt.number > 1:  # it may be what it was given that is lost each time
                self._outputs.forget(attempt.task.outputs, alone=True)
        except self._ray.exceptions.RayError as error:
            self.check(progress)  # of a node that has joined and cannot run it, which it names
            raise InputError(f"ray: {attempt.task.name}: {last_line(error)}") from None
        if why and twins:
            return
        board.close(key)
        if why:
            self._keep_state(one, answer)  # of a node that is drained
            again.append(attempt.again(why, seconds, progress))
            again[-1].task = attempt.task.going_on()
            return
        if answer["kind"] == "needs":
            self._send(attempt.task.files)
            again.append(attempt)
            return
        for twin in twins:
            del running[twin]
            with contextlib.suppress(Exception):
                self._ray.cancel(twin, force=True)
        self._lengths.append(seconds)
        took = answer["record"].get("timing", {}).get("frozen_seconds", 0.0)
        words, parts = self._sent(attempt.task)
        self._outputs.offer(attempt.task.outputs, answer["node"], took, words=words, with_=parts)
        yield attempt.task, self._answer(attempt, answer, one)

    def _answer(self, attempt: Attempt, answer: dict[str, Any], one: _Running) -> Answer:
        name = self._named(answer["node"])
        if answer["kind"] == "input":
            raise InputError(answer["text"])
        if answer["kind"] == "stopped":
            raise StopRequested
        if answer["kind"] != "done":
            raise RuntimeError(f"{attempt.task.name} on {name}: " + "\n".join(answer["log"]))

        def tensors() -> Tensors | None:
            try:
                data: bytes = self._ray.get(one.tensors)
            except self._ray.exceptions.RayError:  # lost with its node
                return None
            finally:
                one.tensors = None
            return load(data) if data else {}

        def drop() -> None:
            one.tensors = None  # the cluster forgets what nobody refers to

        place = Place(
            name,
            self.resources.cpus,
            self.resources.gpus,
            attempts=attempt.number,
            lost_s=attempt.lost_s,
            num_fetched=answer["fetched"],
        )
        return Answer(answer["record"], place, (*attempt.log, *answer["log"]), tensors, drop)

    def _send(self, files: tuple[Content, ...]) -> None:
        """Put files where every node can get them, in parts; the driver's node keeps them."""
        for file in files:
            if file.sha256 in self._parts:
                continue
            with open(file.path, "rb") as stream:  # noqa: PTH123
                parts = iter(lambda: stream.read(PART_BYTES), b"")
                try:
                    self._parts[file.sha256] = [
                        self._ray.put(np.frombuffer(part, np.uint8)) for part in parts
                    ]
                except self._ray.exceptions.RayError as error:
                    raise InputError(
                        f"ray: {file.path} ({file.num_bytes / 1e6:.0f} MB) cannot be sent: "
                        f"{loss(error, ' on this node')}"
                    ) from None

    def _hear(self, running: dict[Any, _Running], board: Board) -> None:
        where = {one.attempt.task.key: one for one in running.values()}
        for event in self._news.read():
            if event["key"] in where:
                where[event["key"]].node = event["node"]
                if "total" in event:
                    board.event(event["key"], event)

    def _nodes(self) -> list[dict[str, Any]]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        hosts = [node["NodeManagerHostname"] for node in nodes]
        for node in nodes:
            host, key = node["NodeManagerHostname"], node["NodeID"]
            self._names[key] = host if hosts.count(host) == 1 else f"{host} ({key[:6]})"
        return nodes

    def _look(self, nodes: list[dict[str, Any]]) -> int:
        """How many tasks there is room for on the nodes that there are now."""
        self._looked = time.monotonic()
        cpus, gpus = self.resources.cpus, self.resources.gpus
        each = [
            min(
                int(node["Resources"].get("CPU", 0) // cpus),
                int(node["Resources"].get("GPU", 0) / gpus) if gpus else 10**6,
            )
            for node in nodes
        ]
        self._room = sum(each)
        stores = [node["Resources"].get("object_store_memory", 0) for node in nodes]
        self._outputs.look([int(size) for size in stores])
        return self._room

    def _named(self, node: str) -> str:
        if node not in self._names:
            self._nodes()  # it has joined since
        return self._names.get(node, node[:6] or "an unknown node")

    def _on(self, node: str, *, soft: bool = False) -> dict[str, Any]:
        strategies = self._ray.util.scheduling_strategies
        return {"scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(node, soft=soft)}

    def _cancel(self, running: dict[Any, _Running], *, wait: bool) -> None:
        """End our tasks, and no others; with `wait` those that train save their states first."""
        with contextlib.suppress(Exception):
            for ref in [*running, *self._outputs.references()]:
                self._ray.cancel(ref, force=not (wait and ref in running))
        if not wait or not running:
            return
        with contextlib.suppress(Exception):
            ready, late = self._ray.wait(list(running), num_returns=len(running), timeout=STOP_S)
            for ref in late:
                self._ray.cancel(ref, force=True)
            for ref in ready:
                with contextlib.suppress(self._ray.exceptions.RayError, OSError):
                    self._keep_state(running[ref], self._ray.get(ref))

    def _keep_state(self, one: _Running, answer: dict[str, Any]) -> None:
        """Write what a stopped task left to where the driver keeps it."""
        path = one.attempt.task.state
        if path is None or answer.get("kind") != "stopped":
            return
        with contextlib.suppress(self._ray.exceptions.RayError):  # gone with its node
            left = load(self._ray.get(one.tensors) or save({})).get(STATE)
            if left is None:
                return
            with atomic_path(path) as temporary:
                temporary.write_bytes(left.numpy().tobytes())

    def close(self) -> None:
        """Remove outputs of frozen layers from the nodes."""
        self._parts.clear()
        self._outputs.clear()
        with contextlib.suppress(Exception):  # a node that is going anyway
            asked = [
                self._ray.remote(tidy)
                .options(num_cpus=0, max_retries=0, **self._on(node["NodeID"]))
                .remote(self._session)
                for node in self._nodes()
            ]
            self._ray.wait(asked, num_returns=len(asked), timeout=TIDY_S)
