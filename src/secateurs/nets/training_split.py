"""A network cut where training begins, also behind earlier depths that its head reads.

What the head reads of frozen depths goes along with the maps, as further channels of them. So all
that training cannot change is one function of the images with one tensor as its result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.nets.backbones import trace_of
from secateurs.nets.depth import is_fixed, split_at, step_name
from secateurs.nets.several_depths import (
    BOTH,
    BothDepths,
    Layout,
    SeveralDepths,
    Steps,
    layout_before,
    pooled_maps,
)

Program = list[tuple[str, nn.Module]]  # steps in running order; a `BothDepths` reads where it is


def training_split(model: nn.Module, name: str, depth: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The model as (prefix, tail), as `split_at` gives them, the prefix as long as can be.

    `split_at` takes all steps behind the first depth that a head reads as one. Here the prefix goes
    on among them, to where training at `depth` begins.

    >>> from secateurs.nets.backbones import build
    >>> name = "squeezenet1_1+features.7"
    >>> prefix, tail = training_split(build(name, 3), name, 25)  # only the head is trained
    >>> [step for step, _ in tail.named_children()], next(iter(tail.both.children()))
    (['both', 'head'], Dropout(p=0.5, inplace=False))
    """
    prefix, tail = split_at(model, name, depth)
    if not isinstance(model, SeveralDepths):
        return prefix, tail
    program, fixed = _program(model), _num_fixed(model, name, depth)
    if not fixed or BOTH in dict(prefix.named_children()):
        return prefix, tail
    prefix.add_module(BOTH, Stretch(program[:fixed], [], program[fixed:]))
    rest = dict(tail.named_children())
    if fixed < len(program):
        rest[BOTH] = Stretch(program[fixed:], program[:fixed], [])
    else:
        del rest[BOTH]
    return prefix, nn.Sequential(OrderedDict(rest))


def training_stretch(model: nn.Module, name: str, first: int, second: int) -> nn.Sequential:
    """The steps from the prefix of training at a depth to that at a `second` one, not before it."""
    before, after = (
        dict(split_at(model, name, depth)[0].named_children()) for depth in (first, second)
    )
    found = {step: module for step, module in after.items() if step not in before}
    if isinstance(model, SeveralDepths):
        found.pop(BOTH, None)
        start, end = (_num_fixed(model, name, depth) for depth in (first, second))
        program = _program(model)
        if start < end:
            found[BOTH] = Stretch(program[start:end], program[:start], program[end:])
    return nn.Sequential(OrderedDict(found))


class Stretch(nn.Module):
    """Consecutive steps behind the earliest depth that a head reads, `before` and `after` others.

    Takes and gives maps with what was read so far as further channels (see `packed`); the first one
    takes maps alone, and the last one gives the features that the head reads.
    """

    def __init__(self, steps: Program, before: Program, after: Program) -> None:
        super().__init__()
        self.num_read = sum(_num_features(step) for _, step in before)
        self.given: Layout = _layout([*steps, *after])
        self.made: Layout | None = _layout(after) if after else None
        for path, step in steps:
            read = _Reading(step) if isinstance(step, BothDepths) else step
            self.add_module(step_name(path), read)

    def forward(self, given: Tensor) -> Tensor:
        """Maps with what was read, or features (n, f)."""
        maps, read = unpacked(given, self.num_read, self.given)
        for step in self.children():
            if isinstance(step, _Reading):
                read = torch.cat([step(maps), read], 1)
            else:
                maps = step(maps)
        if self.made is None:
            return torch.cat([maps, read], 1)
        return packed(maps, read, self.made)


class _Reading(nn.Module):
    """What a head reads of maps at an earlier depth."""

    def __init__(self, both: BothDepths) -> None:
        super().__init__()
        self.norm = both.norm
        self.layout: Layout = both.layout

    def forward(self, maps: Tensor) -> Tensor:
        """Normalised statistics (n, 2 channels)."""
        return self.norm(pooled_maps(maps, self.layout))


def packed(maps: Tensor, read: Tensor, layout: Layout) -> Tensor:
    """Maps with features (n, f) as so many further channels as it takes, filled up with zeros.

    >>> maps, read = torch.ones(1, 2, 3, 1), torch.tensor([[5.0, 6, 7, 8]])
    >>> packed(maps, read, "first").flatten().tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0, 0.0, 0.0]
    """
    axis = _channel_axis(maps, layout)
    moved = maps.movedim(axis, 1)
    num = moved[:1, 0].numel()
    extra = -(-read.shape[1] // num)
    filled = F.pad(read.to(maps.dtype), (0, extra * num - read.shape[1]))
    further = filled.reshape(len(maps), extra, *moved.shape[2:])
    return torch.cat([moved, further], 1).movedim(1, axis)


def unpacked(values: Tensor, num_read: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """The maps and the features (n, num_read) that were `packed`.

    >>> maps, read = torch.ones(1, 2, 3, 1), torch.tensor([[5.0, 6, 7, 8]])
    >>> unpacked(packed(maps, read, "first"), 4, "first")[1]
    tensor([[5., 6., 7., 8.]])
    """
    if not num_read:
        return values, values.new_empty(len(values), 0)
    axis = _channel_axis(values, layout)
    moved = values.movedim(axis, 1)
    extra = -(-num_read // moved[:1, 0].numel())
    channels = moved.shape[1] - extra
    read = moved[:, channels:].flatten(1)[:, :num_read]
    maps = moved[:, :channels].movedim(1, axis)
    layouts = {4: torch.channels_last}
    return maps.contiguous(memory_format=layouts.get(maps.ndim, torch.contiguous_format)), read


def _channel_axis(values: Tensor, layout: Layout) -> int:
    return 1 if layout == "first" or values.ndim == 2 else values.ndim - 1


def _num_features(step: nn.Module) -> int:
    return step.norm.num_features if isinstance(step, BothDepths) else 0


def _layout(steps: Sequence[tuple[str, nn.Module]]) -> Layout:
    """Where the maps that go into these steps have their channels."""
    own = [step for _, step in steps if not isinstance(step, BothDepths)]
    return layout_before(nn.Sequential(*own))


def _program(model: SeveralDepths) -> Program:
    return list(_followed(model.both, BOTH))


def _followed(steps: nn.Module, where: str) -> Generator[tuple[str, nn.Module]]:
    if isinstance(steps, BothDepths):
        yield where, steps
        yield from _followed(steps.late, f"{where}.late")
    elif isinstance(steps, Steps):
        for name, child in steps.named_children():
            yield from _followed(child, f"{where}.{name}")
    else:
        yield where, steps


def _num_fixed(model: SeveralDepths, name: str, depth: int) -> int:
    """How many steps from the first reading on training at a depth cannot change.

    0 where not all before it are fixed, or where nothing is but the reading.
    """
    program = _program(model)
    _, tail = split_at(model, name, depth)
    left = [step for step, _ in tail.named_children()]
    if BOTH not in left:
        return len(program)
    if left[0] != BOTH:
        return 0
    seen = trace_of(model, name)
    fixed = 0
    for path, step in program:
        if not isinstance(step, BothDepths) and not is_fixed(path, step, seen, depth):
            break
        fixed += 1
    return fixed if any(not isinstance(step, BothDepths) for _, step in program[:fixed]) else 0
