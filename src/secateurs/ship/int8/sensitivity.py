"""Which layers do most harm when they are quantized, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.progress import SILENT, Progress
from secateurs.ship.int8.agreement import agreement
from secateurs.ship.int8.compensation import CompensatedLayer
from secateurs.stopping import StopFlag

NUM_MEASURED = 12  # layers: those with the largest errors of their own outputs
NUM_IMAGES = 32
NUM_LEFT = (1, 2, 4)
MOST_BYTES = 0.1  # of all constants: what layers left in float32 may hold

Images = NDArray[np.float32]


def sensitive_layers(
    graph_of: Callable[[tuple[str, ...]], Any],
    layers: Sequence[CompensatedLayer],
    images: Images,
    *,
    run: Callable[[Any, Images], Images],
    reference: Images,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> list[str]:
    """Nodes in falling order of what leaving each alone in float32 improves; none that do not.

    `graph_of` gives the quantized graph without some nodes, `run` a graph's logits; measured is the
    divergence from `reference`, the float32 network's logits, on some calibration `images`.
    """
    stop = stop or StopFlag()
    images, reference = images[:NUM_IMAGES], reference[:NUM_IMAGES]
    worst = sorted(layers, key=lambda layer: -layer.error)[:NUM_MEASURED]

    def divergence(left: tuple[str, ...]) -> float:
        return agreement(run(graph_of(left), images), reference).divergence

    with progress.task("sensitive layers", len(worst) + 1) as advance:
        whole = divergence(())
        advance(1)
        gains: list[tuple[float, str]] = []
        for layer in worst:
            stop.check()
            gains.append((whole - divergence((layer.node,)), layer.node))
            advance(1)
    return [name for gain, name in sorted(gains, key=lambda one: -one[0]) if gain > 0]


def layers_to_leave(model: Any, ranked: Sequence[str]) -> list[tuple[str, ...]]:
    """Sets of 1, 2 and 4 nodes to leave in float32, without those that hold most of the weights.

    Together they hold at most a tenth of the bytes of all constants of the `model`.
    """
    size = {one.name: one.ByteSize() for one in model.graph.initializer}
    held = {node.name: sum(size.get(name, 0) for name in node.input) for node in model.graph.node}
    left = MOST_BYTES * sum(size.values())
    chosen: list[str] = []
    for name in ranked:
        if held[name] <= left:
            chosen.append(name)
            left -= held[name]
    return [tuple(chosen[:number]) for number in NUM_LEFT if number <= len(chosen)]
