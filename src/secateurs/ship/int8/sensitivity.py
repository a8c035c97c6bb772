"""Which blocks of layers do most harm when they are quantized, by measurement."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.progress import SILENT, Progress
from secateurs.ship.int8.operators import LINEAR, layer_names, linear_nodes
from secateurs.stopping import StopFlag

NUM_IMAGES = 32
MOST_BYTES = 0.15  # of all constants: what blocks left in float32 may hold
_BLOCK = re.compile(r"\w+(?:\.\d+)+")

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """Neighbouring layers of a graph: their name, all nodes, and what float32 for them costs.

    `layers` names those with weights; `bytes_share` is the share of all constants that they hold,
    `time_share` the share of the multiply-accumulates.
    """

    name: str
    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    bytes_share: float
    time_share: float


def block_of(layer: str) -> str:
    """The block that a layer's name belongs to: its first name with the numbers after it.

    >>> [block_of(name) for name in ("features.7.conv.1.0", "blocks.1.0.conv_dw", "conv_stem")]
    ['features.7', 'blocks.1.0', 'conv_stem']
    """
    found = _BLOCK.match(layer)
    return layer if found is None else found.group()


def blocks_of(model: Any, *, without: Sequence[str] = ()) -> list[Block]:
    """The blocks of an ONNX graph with inferred shapes, in running order.

    A node without weights belongs to the block of the layer before it. Nodes in `without` are left
    out.
    """
    linear = linear_nodes(model)
    names = layer_names(model, linear)
    size = {one.name: one.ByteSize() for one in model.graph.initializer}
    total = sum(size.values())
    work = _macs(model)
    own: dict[str, tuple[int, str]] = {}  # when a tensor's block began, and its name
    begun: dict[str, int] = {}
    nodes: dict[str, list[Any]] = {}
    for node in model.graph.node:
        before = [own[name] for name in node.input if name in own]
        block = max(before)[1] if before else ""
        if node.name in names:
            block = block_of(names[node.name])
        place = begun.setdefault(block, len(begun))
        own |= dict.fromkeys(node.output, (place, block))
        if node.name not in without:
            nodes.setdefault(block, []).append(node)
    found: list[Block] = []
    for block, members in nodes.items():
        layers = tuple(names[node.name] for node in members if node.name in names)
        if layers:
            held = sum(size.get(name, 0) for node in members for name in node.input)
            share = sum(work.get(node.name, 0.0) for node in members) / max(1.0, sum(work.values()))
            every = tuple(node.name for node in members)
            found.append(Block(block, every, layers, held / total, share))
    return found


def _macs(model: Any) -> dict[str, float]:
    """Multiply-accumulates of one image by node, as far as shapes are known."""
    shapes = {
        value.name: [one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in [*model.graph.value_info, *model.graph.output]
    }
    weights = {one.name: list(one.dims) for one in model.graph.initializer}
    found: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type in LINEAR and node.input[1] in weights:
            positions = shapes.get(node.output[0], [])[2:] if node.op_type == "Conv" else []
            found[node.name] = float(np.prod(weights[node.input[1]])) * float(np.prod(positions))
    return found


def sensitive_blocks(
    graph_of: Callable[[tuple[str, ...]], Any],
    blocks: Sequence[Block],
    images: Images,
    *,
    run: Callable[[Any, Images], Images],
    reference: Images,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> list[Block]:
    """Blocks in falling order of what leaving each alone in float32 improves for what it costs.

    `graph_of` gives the quantized graph without some nodes, `run` a graph's logits; measured is the
    squared error against `reference`, the float32 network's logits, on some calibration `images`:
    it was trained on them, so that its probabilities say little. The cost is the sum of the shares
    of bytes and of multiply-accumulates. Blocks that improve nothing are left out.
    """
    stop = stop or StopFlag()
    images, reference = images[:NUM_IMAGES], reference[:NUM_IMAGES]

    def error(left: tuple[str, ...]) -> float:
        away = (run(graph_of(left), images) - reference).astype(np.float64)
        return float(np.square(away - away.mean(1, keepdims=True)).mean())

    with progress.task("sensitive layers", len(blocks) + 1) as advance:
        whole = error(())
        advance(1)
        gains: dict[str, float] = {}
        for block in blocks:
            stop.check()
            gains[block.name] = whole - error(block.nodes)
            advance(1)
    return ranked(blocks, gains)


def ranked(blocks: Sequence[Block], gains: Mapping[str, float]) -> list[Block]:
    """Blocks with a gain, in falling order of gain for cost."""
    useful = [block for block in blocks if gains[block.name] > 0]
    cost = {block.name: block.bytes_share + block.time_share + 1e-3 for block in blocks}
    return sorted(useful, key=lambda block: -gains[block.name] / cost[block.name])


def blocks_to_leave(found: Sequence[Block]) -> list[tuple[Block, ...]]:
    """Growing sets of blocks to leave in float32, in the order given.

    Together they hold at most `MOST_BYTES` of the bytes of all constants; a block that does not fit
    is passed over. The sets grow by one block at first and by half of themselves later.
    """
    left, chosen = MOST_BYTES, list[Block]()
    for block in found:
        if block.bytes_share <= left:
            chosen.append(block)
            left -= block.bytes_share
    sizes: list[int] = []
    while not sizes or sizes[-1] < len(chosen):
        last = sizes[-1] if sizes else 0
        sizes.append(min(len(chosen), last + max(1, last // 2)))
    return [tuple(chosen[:size]) for size in sizes if size]
