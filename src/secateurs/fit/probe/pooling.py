"""Pooled features at the borders of frozen prefixes, at all depths in one pass over the images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.fit.precision import Precision, arithmetic
from secateurs.nets.backbones import trace_of
from secateurs.nets.chain import WHOLE, chain
from secateurs.nets.depth import check_depth, num_depths, split_at, steps
from secateurs.nets.several_depths import (
    BOTH,
    Layout,
    both_depths,
    layout_before,
    pooled_maps,
)
from secateurs.nets.trace import Trace, eval_mode
from secateurs.stopping import StopFlag

BATCH, BATCH_CUDA = 32, 256
MEMORY_BYTES = 2**30  # of features that are held in memory


@dataclass(frozen=True)
class Border:
    """Where the features of a depth are taken.

    Behind the first `num_steps` steps of the network's chain; for a network whose chain cannot be
    opened, or a layer inside of a step, at the input of the module at `path`. `layout` says
    which axis the channels are on: "first" (n, channels, ...) or "last" (n, ..., channels); the
    others are positions. Features are the channels' means over positions, and with `deviations`
    their standard deviations.
    """

    depth: int
    num_steps: int
    path: str | None
    layout: Layout
    deviations: bool = True


def borders(model: nn.Module, name: str, depths: Sequence[int]) -> tuple[Border, ...]:
    """Where `pooled_features` takes the features of each depth.

    Before a flattening that comes last: pooled maps have fewer features than flat ones. At the last
    depth, where only the head is trained, exactly what the head receives. Where a head reads
    earlier depths, at the input of the first layer that is trained. Raises InputError for a depth
    outside the network's.

    >>> from secateurs.nets.backbones import build
    >>> [(b.num_steps, b.path) for b in borders(build("alexnet", 3), "alexnet", (0, 5, 7))]
    [(0, None), (14, None), (0, 'classifier.6')]
    """
    seen = trace_of(model, name)
    opened = [step for step, _ in chain(model, name)] != [WHOLE]
    last = num_depths(model, name) - 1
    nested = bool(both_depths(model))  # all behind the first earlier depth is one step
    parts = {}
    if nested or not opened:
        parts = {step.depth: step.path for step in steps(model, name)[:-1]}
    found: list[Border] = []
    for depth in depths:
        check_depth(model, name, depth)
        prefix, tail = split_at(model, name, depth)
        names = [step for step, _ in prefix.named_children()]
        num = len(names) - (names[-1:] == ["flatten"])
        path, layout = None, layout_before(tail)
        within = nested and [step for step, _ in tail.named_children()][:1] == [BOTH]
        if depth == last or (depth > 0 and (num <= 0 or not opened or within)):
            path = _called(parts.get(depth, seen.weighted[depth]), seen)
            num, layout = 0, layout_before(model.get_submodule(path))
        if names[-1:] == ["flatten"]:
            layout = "first"
        found.append(Border(depth, num, path, layout, deviations=depth < last))
    return tuple(found)


def _called(path: str, seen: Trace) -> str:
    """The module at `path`, or the nearest one around it that is called with one tensor."""
    while path and path not in seen.inputs:
        path = path.rpartition(".")[0]
    return path


def pooled_features(
    model: nn.Module,
    name: str,
    places: Sequence[Border],
    images: Images,
    *,
    mirrored: bool,
    device: torch.device,
    precision: Precision = "float32",
    stop: StopFlag | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[Tensor]:
    """Features (views, images, features), float32 on the CPU, one tensor for each of `places`.

    One pass of the evaluation views, and with `mirrored` one of their mirror images. Holds the
    features, beyond `MEMORY_BYTES` in a temporary file that the system pages in and out, and one
    batch; what lies behind the last place is not computed. The model's modes are
    restored. Raises StopRequested when `stop` is set, between two batches.
    """
    if not places or len(images) == 0:
        raise InputError("probe: no depth, or no image, was given")
    num, views = len(images), 2 if mirrored else 1
    step = BATCH_CUDA if device.type == "cuda" else BATCH
    found: list[Tensor] = []
    with eval_mode(model), torch.inference_mode(), arithmetic(precision, device):
        for first in range(0, num, step):
            rows = slice(first, min(first + step, num))
            upright = images.eval_views(rows, device)
            for view in range(views):
                if stop is not None:
                    stop.check()
                batch = upright.flip(-1) if view else upright
                parts = _visit(model, name, places, batch)
                if not found:
                    found = _room([(views, num, part.shape[1]) for part in parts])
                for whole, part in zip(found, parts, strict=True):
                    whole[view, rows] = part.cpu()
                advance(rows.stop - rows.start)
    return found


def _room(shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """Tensors of these shapes: in memory, or mapped to a file that goes with the last of them."""
    total = sum(4 * views * num * width for views, num, width in shapes)
    if total <= MEMORY_BYTES:
        return [torch.empty(shape) for shape in shapes]
    with tempfile.TemporaryFile() as file:
        file.truncate(total)
        flat = torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+"))
    parts = flat.split([views * num * width for views, num, width in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _visit(model: nn.Module, name: str, places: Sequence[Border], batch: Tensor) -> list[Tensor]:
    batch = batch.contiguous(memory_format=torch.channels_last)
    seen: dict[Border, Tensor] = {}
    inner = [place for place in places if place.path is not None]
    outer = [place for place in places if place.path is None]
    steps = chain(model, name)
    with _watching(model, inner, seen):
        for at in range(len(steps) + 1):
            for place in outer:
                if place.num_steps == at:
                    seen[place] = _pooled(batch, place)
            if len(seen) == len(places) or at == len(steps):
                break
            batch = steps[at][1](batch)
    return [seen[place] for place in places]


def _pooled(batch: Tensor, place: Border) -> Tensor:
    return pooled_maps(batch.float(), place.layout, deviations=place.deviations)


@contextmanager
def _watching(
    model: nn.Module, inner: Sequence[Border], seen: dict[Border, Tensor]
) -> Generator[None]:
    """Pool what goes into the modules that `inner` names while the block runs."""

    def take(place: Border, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(place, _pooled(args[0], place))

    hooks = [
        model.get_submodule(place.path or "").register_forward_pre_hook(partial(take, place))
        for place in inner
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
