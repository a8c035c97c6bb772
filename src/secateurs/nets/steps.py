"""The parts of a network that people freeze: their names, and some depths to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from secateurs.nets.backbones import layers, num_heads, trace_of
from secateurs.nets.chain import BETWEEN, WHOLE, chain, num_weighted, opened_parts
from secateurs.nets.several_depths import BothDepths, late_steps, stock_path
from secateurs.nets.step_names import step_names


@dataclass(frozen=True)
class Step:
    """A part of a network that is frozen or trained as a whole.

    `name` is what people call it, `path` the module it begins with, and `depth` the number of
    weighted layers before it: at that depth it is the first part that is trained.
    """

    name: str
    path: str
    depth: int


def steps(model: nn.Module, name: str) -> tuple[Step, ...]:
    """The freezable parts of a network in running order; the last is the head.

    A part is a block of the network, or a layer outside of blocks. At the depth of each, all parts
    before it are the prefix that `split_at` gives; where blocks hand on more than one tensor, the
    prefix is shorter.

    >>> from secateurs.nets.backbones import build
    >>> [step.name for step in steps(build("resnet18", 3), "resnet18")][:3]
    ['stem', 'stage 1 block 1', 'stage 1 block 2']
    """
    known = layers(model, name)
    weighted = {layer.path: place for place, layer in enumerate(known)}
    head = len(known) - num_heads(model, name)
    starts: dict[int, str] = {}
    for path in _paths(model, name):
        within = [place for one, place in weighted.items() if _is_in(one, path)]
        if within:
            starts.setdefault(min(within), path)
    starts = {depth: path for depth, path in starts.items() if depth < head}
    starts[head] = known[head].path
    if min(starts) > 0:
        starts[0] = known[0].path
    depths = sorted(starts)
    paths = _shortened([starts[depth] for depth in depths], model)
    names = list(step_names([stock_path(path, model) for path in paths]))
    for place, depth in enumerate(depths):
        layer = known[depth]
        alone = place + 1 < len(depths) and depths[place + 1] == depth + 1
        if alone and layer.alias != stock_path(layer.path, model):
            names[place] = layer.alias
    return _merged(names, paths, depths)


def auto_depths(model: nn.Module, name: str, num: int = 6) -> tuple[int, ...]:
    """Some `num` depths from 0 (all is trained) to the head only, by equal shares of the parts.

    Shares of the parts rather than of the multiply-accumulates or the parameters: those lie in the
    first or in the last layers of most networks, so that most of the depths would be neighbours.
    Every depth is the beginning of a part.

    >>> from secateurs.nets.backbones import build
    >>> auto_depths(build("resnet18", 3), "resnet18")
    (0, 3, 8, 10, 15, 20)
    """
    borders = [step.depth for step in steps(model, name)]
    last = len(borders) - 1
    count = min(max(num, 2), len(borders))
    return tuple(sorted({borders[round(place * last / (count - 1))] for place in range(count)}))


def depth_name(model: nn.Module, name: str, depth: int) -> str:
    """What is frozen at a depth, in words.

    >>> from secateurs.nets.backbones import build
    >>> model = build("resnet18", 3)
    >>> [depth_name(model, "resnet18", depth) for depth in (0, 3, 4, 20)]
    ['all trained', 'up to stage 1 block 1', 'up to layer1.1.conv1', 'head only']
    """
    known = layers(model, name)
    if depth <= 0:
        return "all trained"
    if depth >= len(known) - num_heads(model, name):
        return "head only"
    found = steps(model, name)
    for before, step in pairwise(found):
        if step.depth == depth:
            return f"up to {before.name}"
    return f"up to {known[depth - 1].alias}"


def _paths(model: nn.Module, name: str) -> list[str]:
    """The modules that make up the parts: those of the chain's steps, or the blocks within one."""
    found = chain(model, name)
    blocks = opened_parts(model, trace_of(model, name))
    if [path for path, _ in found] == [WHOLE]:
        return blocks
    paths: list[str] = []
    for path, module in found:
        if isinstance(module, BothDepths):
            paths += late_steps(module, path)
        elif not path.startswith(BETWEEN):
            paths.append(path)
        elif num_weighted(module):  # blocks that run beside each other, or hand on several tensors
            inner = {id(part) for part in module.modules()}
            paths += [block for block in blocks if id(model.get_submodule(block)) in inner]
    return paths


def _is_in(path: str, where: str) -> bool:
    return path == where or path.startswith(f"{where}.")


def _shortened(paths: Sequence[str], model: nn.Module) -> list[str]:
    """Paths without the places of layers that are alone in their sequence."""
    found = list(paths)
    stock = [stock_path(path, model) for path in paths]
    for place, path in enumerate(paths[:-1]):
        parent, _, _ = stock[place].rpartition(".")
        alone = sum(_is_in(other, parent) for other in stock) == 1
        if parent and alone and num_weighted(model.get_submodule(path)) == 1:
            found[place] = path.rpartition(".")[0]
    return found


def _merged(names: list[str], paths: list[str], depths: list[int]) -> tuple[Step, ...]:
    """One step where neighbours have the same name, and no name twice."""
    found: list[Step] = []
    for place, (name, path, depth) in enumerate(zip(names, paths, depths, strict=True)):
        if name == "head" and place + 1 < len(names):
            name = "hidden layers of the head"
        if found and found[-1].name == name:
            continue
        if any(step.name == name for step in found):
            name = f"{name} ({path})"
        found.append(Step(name, path, depth))
    return tuple(found)
