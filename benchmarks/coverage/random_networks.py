"""Random networks through the public calls: nothing raises, and every cut is right.

A network is a random graph of layers and operations on tensors (samples, 4 places, channels). Each
is inspected, half of the units of every group that is offered are removed by `secateurs.prune`,
and the result is saved and loaded into a fresh network. A failure is an exception that is no
InputError, a parity above 1e-5, weights that do not come back bit for bit, or other outputs.

    python benchmarks/coverage/random_networks.py --seeds 700 \\
        --json benchmarks/measured/random_networks.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs

CHANNELS, PLACES = 6, 4
Step = Callable[[Tensor, Tensor], Tensor]  # of a tensor and another of the same width


def _rotated(x: Tensor, _: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _overwritten(x: Tensor, _: Tensor) -> Tensor:
    x = x.clone()
    x[:, :1] = x[:, :1] * 2
    return x


PLAIN: dict[str, Step] = {  # operations without parameters, which keep the width
    "gelu": lambda x, _: F.gelu(x),
    "add": lambda x, y: x + y,
    "gated": lambda x, y: x * y.sigmoid(),
    "where": lambda x, y: torch.where(x > y, x, y * 0.5),
    "maximum": torch.maximum,
    "joined places": lambda x, y: torch.cat([x[:, :2], y[:, 2:]], 1),
    "centred": lambda x, _: x - x.mean(-1, keepdim=True),
    "softmax": lambda x, _: x.softmax(-1),
    "overwritten": _overwritten,
    "places by number": lambda x, _: x[:, torch.tensor([3, 1, 0, 2])],
    "cumulative": lambda x, _: x.cumsum(1),
    "padded": lambda x, _: F.pad(x, (0, 0, 1, 0))[:, :PLACES],
    "normalised": lambda x, _: F.normalize(x, dim=-1),
    "stacked": lambda x, _: torch.stack([x, x * 2]).sum(0),
}
HALVES: dict[str, Step] = {  # the same for an even width
    "swapped halves": lambda x, _: torch.cat(x.chunk(2, -1)[::-1], -1),
    "rotated": _rotated,
}


class Turned(nn.Module):
    """A layer along the places, or over channels that it wants first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(samples, places, channels) to the same."""
        return self.layer(x.mT).mT


class Twice(Turned):
    """A layer that runs two times."""

    def forward(self, x: Tensor) -> Tensor:
        """The same of the same width."""
        return self.layer(self.layer(x).relu())


class Gate(Turned):
    """Channels weighed by what they are on the mean."""

    def forward(self, x: Tensor) -> Tensor:
        """The same of the same width."""
        return x * self.layer(x.mean(1, keepdim=True)).sigmoid()


class First(Turned):
    """The outputs of a recurrent layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(samples, places, outputs)."""
        return self.layer(x)[0]


class Attention(Turned):
    """Attention of a tensor to itself."""

    def forward(self, x: Tensor) -> Tensor:
        """The same of the same width."""
        return self.layer(x, x, x)[0]


class Own(nn.Module):
    """An operation with a parameter of its own."""

    def __init__(self, kind: str, *shape: int) -> None:
        super().__init__()
        self.kind, self.value = kind, nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        """What the kind says of x and the parameter."""
        if self.kind == "scale":
            return x * self.value
        if self.kind == "shift":
            return x + self.value.exp()
        if self.kind == "linear":
            return F.linear(x, self.value)
        return torch.einsum("btc,co->bto", x, self.value)


@dataclass
class Node:
    """One step: what it does with the tensors at two places."""

    name: str
    source: int
    other: int
    layer: int = -1  # place in `layers`, for steps that have one
    transposed: bool = False


class Network(nn.Module):
    """A random graph, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw, self.nodes = random.Random(seed), list[Node]()
        self.layers, self.widths = nn.ModuleList(), [CHANNELS]
        for _ in range(self.draw.randint(3, 8)):
            self._grow()
        self.head = nn.Linear(self.widths[-1], 3)

    def _grow(self) -> None:
        source = self.draw.randrange(len(self.widths))
        width = self.widths[source]
        other = self.draw.choice([k for k, w in enumerate(self.widths) if w == width])
        kind = self.draw.choice(["plain", "halves", "layer", "layer", "layer", "joined", "reused"])
        if kind == "plain":
            self._add(Node(self.draw.choice(list(PLAIN)), source, other), width)
        elif kind == "halves" and width % 2 == 0:
            self._add(Node(self.draw.choice(list(HALVES)), source, other), width)
        elif kind == "joined":
            other = self.draw.randrange(len(self.widths))
            self._add(Node("joined", source, other), width + self.widths[other])
        elif kind == "layer":
            layer, made = self._layer(width)
            self.layers.append(layer)
            name = type(layer).__name__
            self._add(Node(name, source, other, len(self.layers) - 1), made)
        elif kind == "reused":
            self._reuse(source, width)

    def _add(self, node: Node, width: int) -> None:
        self.nodes.append(node)
        self.widths.append(width)

    def _layer(self, width: int) -> tuple[nn.Module, int]:
        made = self.draw.choice([4, 6, 8, 12])
        heads = 2 if width % 2 == 0 else 1
        recurrent = self.draw.choice([nn.GRU, nn.LSTM, nn.RNN])
        both = self.draw.random() < 0.3
        shape = self.draw.choice([(width,), (1, width), (1, 1, width), (1, PLACES, width)])
        choices: list[tuple[Callable[[], nn.Module], int]] = [
            *[(lambda: nn.Linear(width, made, bias=made != 6), made)] * 3,
            (lambda: Twice(nn.Linear(width, width)), width),
            (lambda: Gate(nn.Linear(width, width)), width),
            (lambda: nn.LayerNorm(width, elementwise_affine=made != 4), width),
            (lambda: nn.RMSNorm(width), width),
            (lambda: Turned(nn.Conv1d(width, made, 3, padding=1)), made),
            (lambda: Turned(nn.Conv1d(width, width, 3, padding=1, groups=width)), width),
            (lambda: Turned(nn.BatchNorm1d(width)), width),
            (lambda: Turned(nn.GroupNorm(heads, width)), width),
            (lambda: Turned(nn.InstanceNorm1d(width, affine=both)), width),
            (lambda: Turned(nn.Linear(PLACES, PLACES)), width),
            (lambda: Attention(nn.MultiheadAttention(width, heads, batch_first=True)), width),
            (
                lambda: First(recurrent(width, 4, batch_first=True, bidirectional=both)),
                8 if both else 4,
            ),
            (lambda: Own("scale", *shape), width),
            (lambda: Own("shift", *shape), width),
            (lambda: Own("linear", made, width), made),
            (lambda: Own("einsum", width, made), made),
        ]
        make, outputs = self.draw.choice(choices)
        return make(), outputs

    def _reuse(self, source: int, width: int) -> None:
        for place, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear) and layer.in_features == width:
                self._add(Node("reused", source, source, place), layer.out_features)
                return
            if isinstance(layer, nn.Linear) and layer.out_features == width:
                self._add(Node("transposed", source, source, place, True), layer.in_features)
                return

    def forward(self, x: Tensor) -> Tensor:
        """Samples (samples, places, channels) to (samples, 3)."""
        made = [x]
        for node in self.nodes:
            source, other = made[node.source], made[node.other]
            layer = self.layers[node.layer] if node.layer >= 0 else None
            if node.transposed:
                assert isinstance(layer, nn.Linear)
                made.append(F.linear(source, layer.weight.t()))
            elif layer is not None:
                made.append(layer(source))
            elif node.name == "joined":
                made.append(torch.cat([source, other], -1))
            else:
                made.append((PLAIN | HALVES)[node.name](source, other))
        return self.head(made[-1]).mean(1)


@dataclass
class Outcome:
    """What came of one network: groups that were cut, and what went wrong."""

    seed: int
    groups: int = 0
    error: str = ""


def samples(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, PLACES, CHANNELS, generator=generator)


def tried(seed: int, folder: Path) -> Outcome:
    """Inspect, cut by half, save and load the network of one seed."""
    torch.manual_seed(seed)
    network, outcome = Network(seed).eval(), Outcome(seed)
    budget = secateurs.Budget(params=1, round_to=1, fewest=1)  # the ratios decide
    try:
        if not secateurs.inspect(network, samples(seed, 6)).groups:
            return outcome
        loader = [samples(seed + 1, 10), samples(seed + 2, 6)]
        small = secateurs.prune(network, loader, budget, ratios={"*": 0.5})
        outcome.groups = len(small.report["groups"])
        small.save(folder / "small.safetensors")
        again = secateurs.load_weights(Network(seed).eval(), folder / "small.safetensors")
        with torch.no_grad():
            ours, theirs = (net(samples(seed, 6)) for net in (small.model, again))
            state = again.state_dict()
            same = [torch.equal(v, state[name]) for name, v in small.model.state_dict().items()]
            if not all(same) or not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
                outcome.error = "weights or outputs did not come back"
        if not small.report["parity"] <= 1e-5:
            outcome.error = f"parity {small.report['parity']}"
    except secateurs.InputError as error:
        if "gradients" not in str(error):  # what depends on no layer cannot be weighed
            outcome.error = f"InputError: {error}"
    except Exception as error:
        outcome.error = f"{type(error).__name__}: {error}"
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    started, outcomes = time.perf_counter(), list[Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.first, given.first + given.seeds):
            outcomes.append(tried(seed, Path(folder)))
            if outcomes[-1].error:
                print(seed, outcomes[-1].error[:300], flush=True)
    found = {
        "networks": len(outcomes),
        "groups cut": sum(outcome.groups for outcome in outcomes),
        "networks cut": sum(outcome.groups > 0 for outcome in outcomes),
        "failed": {outcome.seed: outcome.error for outcome in outcomes if outcome.error},
        "seconds": round(time.perf_counter() - started),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
