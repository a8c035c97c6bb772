"""A model of a large cluster, event by event: what a study waits for as nodes are added.

The study is 8 depths x 5 runs x 4 backbones x 3 splits, 480 trials. What one machine cannot show is
assumed and written in `Scale`; what it can (overhead of a trial, bytes per node) is measured by
`__main__.py`.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

DEPTHS, RUNS, BACKBONES, SPLITS = 8, 5, 4, 3


@dataclass(frozen=True)
class Measured:
    """What `__main__.py` measured on this machine."""

    overhead_s: float
    bytes_per_node: float

    @staticmethod
    def of(rows: list[dict[str, Any]]) -> Measured:
        """From the row with the most nodes."""
        row = max(rows, key=lambda one: one["nodes"])
        moved = row["bytes_per_node"].values()
        return Measured(max(0.0, row["overhead_seconds"]), sum(moved) / max(1, len(moved)))


@dataclass(frozen=True)
class Scale:
    """A cluster, and what is assumed of its nodes and of the study's trials.

    Seconds are those of one core of 675 photographs: a trial of depth 0 takes `longest_s`, one of
    the deepest `shortest_s`; computing the deepest prefix takes `prefix_s`. `slow_share` of the
    nodes take four times as long; a node is lost every `loss_hours` on average and replaced after
    `replaced_s`. With `together` runs of a depth go to the node that has their prefix, while there
    is one that is free. With `passed` one run of each depth comes first; a prefix that a node has
    computed is sent to those that begin a trial of it later. It is lost with its node.
    """

    nodes: int
    twins: bool = True
    together: bool = False
    passed: bool = False
    slow_share: float = 0.05
    loss_hours: float | None = 20.0
    longest_s: float = 600.0
    shortest_s: float = 20.0
    prefix_s: float = 120.0
    prefix_bytes: float = 100e6
    result_s: float = 0.05  # of the driver: a record, and for a leader its network
    network_bytes_per_s: float = 1.2e9
    replaced_s: float = 180.0
    seed: int = 0


@dataclass(order=True)
class _Event:
    time: float
    number: int
    kind: str = field(compare=False)
    node: int = field(compare=False)
    trial: int = field(compare=False, default=-1)
    birth: int = field(compare=False, default=0)


Trial = tuple[int, int, int, int]


def trials() -> list[Trial]:
    """(backbone, split, depth, run) in the order in which they are begun."""
    return list(product(range(BACKBONES), range(SPLITS), range(DEPTHS), range(RUNS)))


class _Cluster:
    def __init__(self, measured: Measured, scale: Scale) -> None:
        self.measured, self.scale = measured, scale
        self.random = np.random.default_rng(scale.seed)
        self.plan = trials()
        first = [trial[3] for trial in self.plan] if scale.passed else [0] * len(self.plan)
        self.waiting = sorted(range(len(self.plan)), key=lambda at: (first[at], at))[::-1]
        self.done: dict[int, float] = {}
        self.copies: dict[int, set[int]] = {}
        self.slow = self.random.random(scale.nodes) < scale.slow_share
        self.birth = [0] * scale.nodes
        self.has: list[set[tuple[int, ...]]] = [set() for _ in range(scale.nodes)]
        self.made: dict[tuple[int | str, ...], tuple[int, int, float]] = {}  # node, birth, when
        self.running: dict[int, tuple[int, float]] = {}
        self.free = set(range(scale.nodes))
        self.events: list[_Event] = []
        self.count = 0
        self.sent_bytes, self.prefixes, self.prefix_s, self.lost, self.twins = 0.0, 0, 0.0, 0, 0
        self.driver_until, self.driver_s, self.fetch_s = 0.0, 0.0, 0.0
        self.useful_s = 0.0
        self.lengths: list[float] = []

    def at(self, time: float, kind: str, node: int, trial: int = -1) -> None:
        self.count += 1
        birth = self.birth[node] if node >= 0 else 0
        heapq.heappush(self.events, _Event(time, self.count, kind, node, trial, birth))

    def tail_s(self, trial: Trial) -> float:
        deep = trial[2] / (DEPTHS - 1)
        return self.scale.longest_s * (1 - deep) + self.scale.shortest_s * deep

    def start(self, now: float, node: int, number: int) -> None:
        """Begin a trial: what the node lacks is sent and computed first."""
        scale, trial = self.scale, self.plan[number]
        factor = 4.0 if self.slow[node] else 1.0
        seconds = self.measured.overhead_s
        for thing in (("images",), ("weights", trial[0])):
            if thing not in self.has[node]:
                # Nodes pass on what they have: the sender's share grows with the doublings.
                holders = sum(thing in has for has in self.has) + 1
                rounds = 1 + max(0.0, np.log2(scale.nodes / holders))
                size = self.measured.bytes_per_node
                wait = size / scale.network_bytes_per_s * rounds
                self.sent_bytes, self.fetch_s = self.sent_bytes + size, self.fetch_s + wait
                seconds += wait
                self.has[node].add(thing)
        prefix = ("prefix", *trial[:3])
        if trial[2] and prefix not in self.has[node] and self.is_made(prefix, now):
            wait = scale.prefix_bytes / scale.network_bytes_per_s
            self.sent_bytes, self.fetch_s = (
                self.sent_bytes + scale.prefix_bytes,
                self.fetch_s + wait,
            )
            seconds += wait
            self.has[node].add(prefix)
        elif trial[2] and prefix not in self.has[node]:
            shallower = max(
                (one[3] for one in self.has[node] if one[:3] == prefix[:3] and one[3] < trial[2]),
                default=0,
            )
            cost = scale.prefix_s * (trial[2] - shallower) / (DEPTHS - 1) * factor
            self.prefixes, self.prefix_s = self.prefixes + 1, self.prefix_s + cost
            seconds += cost
            self.has[node].add(prefix)
            self.made.setdefault(prefix, (node, self.birth[node], now + seconds))
        seconds += self.tail_s(trial) * factor
        self.free.discard(node)
        self.running[node] = (number, now)
        self.copies.setdefault(number, set()).add(node)
        self.at(now + seconds, "ends", node, number)

    def is_made(self, prefix: tuple[int | str, ...], now: float) -> bool:
        """Whether a node that is still there has computed a prefix."""
        if not self.scale.passed or prefix not in self.made:
            return False
        node, birth, ready = self.made[prefix]
        if self.birth[node] != birth:
            del self.made[prefix]
            return False
        return ready <= now

    def next_for(self, node: int, now: float) -> int | None:
        if self.waiting:
            if self.scale.together:
                held = set[tuple[int, ...]]().union(*self.has)
                groups = [("prefix", *self.plan[number][:3]) for number in self.waiting]
                for wanted in (lambda one: one in self.has[node], lambda one: one not in held):
                    for at in range(len(groups) - 1, -1, -1):
                        if wanted(groups[at]):
                            return self.waiting.pop(at)
            return self.waiting.pop()
        if not self.scale.twins or len(self.lengths) < 3:
            return None
        limit = 2 * statistics.median(self.lengths)
        late = [
            (began, number)
            for number, began in self.running.values()
            if now - began > limit and len(self.copies[number]) == 1
        ]
        return min(late)[1] if late else None

    def fill(self, now: float) -> None:
        for node in sorted(self.free):
            number = self.next_for(node, now)
            if number is None:
                return
            self.twins += bool(self.copies.get(number))
            self.start(now, node, number)

    def give_up(self, node: int) -> None:
        """The node's trial is lost or of no more use."""
        number, _ = self.running.pop(node)
        self.copies[number].discard(node)
        if number not in self.done and not self.copies[number]:
            self.waiting.append(number)

    def run(self) -> float:
        """The time at which all trials are written."""
        if self.scale.loss_hours:
            for node in range(self.scale.nodes):
                self.at(self._lifetime(), "lost", node)
        self.fill(0.0)
        self.at(60.0, "look", -1)
        while len(self.done) < len(self.plan):
            event = heapq.heappop(self.events)
            now, node = event.time, event.node
            if event.kind == "look":  # twins
                self.fill(now)
                self.at(now + 30.0, "look", -1)
            elif event.birth != self.birth[node]:
                continue  # of a node that is gone, or a trial that was ended
            elif event.kind == "ends":
                self.ended(now, node, event.trial)
                self.fill(self.driver_until if now < self.driver_until else now)
            elif event.kind == "lost":
                self.birth[node] += 1
                self.has[node] = set()
                self.free.discard(node)
                if node in self.running:
                    self.lost += 1
                    self.give_up(node)
                self.at(now + self.scale.replaced_s, "joins", node)
                self.fill(now)
            else:
                self.free.add(node)
                self.at(now + self._lifetime(), "lost", node)
                self.fill(now)
        return max(self.done.values())

    def ended(self, now: float, node: int, number: int) -> None:
        self.driver_until = max(now, self.driver_until) + self.scale.result_s
        self.driver_s += self.scale.result_s
        self.done[number] = self.driver_until
        self.lengths.append(now - self.running[node][1])
        self.useful_s += self.tail_s(self.plan[number])
        for other in list(self.copies[number]):
            self.give_up(other)
            self.free.add(other)
            if other != node:  # its twin is ended
                self.birth[other] += 1
                if self.scale.loss_hours:
                    self.at(now + self._lifetime(), "lost", other)

    def _lifetime(self) -> float:
        assert self.scale.loss_hours is not None
        return float(self.random.exponential(self.scale.loss_hours * 3600))


def simulate(measured: Measured, scale: Scale) -> dict[str, Any]:
    """The time of the study on a cluster, and what its nodes spent theirs on."""
    model = _Cluster(measured, scale)
    seconds = model.run()
    node_s = seconds * scale.nodes
    parts = {
        "prefixes": model.prefix_s / node_s,
        "sending": model.fetch_s / node_s,
        "overhead": measured.overhead_s * len(model.plan) / node_s,
    }
    parts["idle, slow or lost"] = 1 - model.useful_s / node_s - sum(parts.values())
    largest = max(parts, key=lambda name: parts[name])
    losses = "none" if scale.loss_hours is None else f"5% slow, {model.lost} lost"
    losses += ", twins" if scale.twins else ""
    losses += ", prefixes passed on" if scale.passed else ""
    losses += ", together" if scale.together else ""
    cells: Iterable[str] = (
        f"{scale.nodes:,}",
        losses,
        f"{seconds / 3600:.2f}",
        f"{model.useful_s / node_s:.0%}",
        f"{model.prefixes}",
        f"{model.sent_bytes / 2**30:.0f}",
        f"{model.driver_s / seconds:.1%}",
        f"{largest} ({parts[largest]:.0%})",
    )
    return {
        "nodes": scale.nodes,
        "seconds": seconds,
        "efficiency": model.useful_s / node_s,
        "parts": parts,
        "prefixes": model.prefixes,
        "sent_bytes": model.sent_bytes,
        "lost": model.lost,
        "twins": model.twins,
        "driver_share": model.driver_s / seconds,
        "line": "| " + " | ".join(cells) + " |",
    }
