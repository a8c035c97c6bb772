"""Parameters tuned by Adam until outputs are nearest to their targets on samples left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.stopping import StopFlag

CHECKS = 6  # times that the samples left out are looked at
BETWEEN = 4  # steps at least from one of them to the next
NOTHING = 1e-9  # a relative error that rounding explains
LEAST_SCALE = 1e-2  # of a parameter's values, in proportion to which it moves


@dataclass(frozen=True)
class Tuned:
    """Squared errors on samples left out, relative to the targets' variance, and the steps."""

    before: float
    after: float
    steps: int


@dataclass(frozen=True)
class Problem:
    """What is tuned: `outputs(part)` runs a part of the samples, `targets[part]` is wanted.

    `train` are the parts of each step, `left_out` those that decide.
    """

    parameters: Sequence[Tensor]
    outputs: Callable[[int], Sequence[Tensor]]
    targets: Mapping[int, Sequence[Tensor]]
    train: Sequence[Sequence[int]]
    left_out: Sequence[int]


def tune(
    problem: Problem,
    *,
    steps: int,
    rate: float,
    seed: int = 0,
    stop: StopFlag | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Tuned:
    """Move the parameters, in place, by `steps` of Adam towards the targets' least squares.

    The step size of each parameter is `rate` times the root mean square of its values, and falls
    to 0 along a cosine. The values with the least error on the samples left out are kept, the first
    ones where none is better. Raises StopRequested between two steps.
    """
    stop = stop or StopFlag()
    spread = _spread([problem.targets[part] for part in problem.left_out])
    before = best = _error(problem) / spread
    if before < NOTHING:
        return Tuned(before, before, 0)
    kept = [parameter.detach().clone() for parameter in problem.parameters]
    taken = 0
    try:
        optimiser = torch.optim.Adam(
            [{"params": [p], "initial": rate * _scale(p)} for p in problem.parameters]
        )
        order = torch.Generator().manual_seed(seed)
        every = max(BETWEEN, steps // CHECKS)
        places: list[int] = []
        for step in range(steps):
            stop.check()
            if not places:
                places = torch.randperm(len(problem.train), generator=order).tolist()
            for group in optimiser.param_groups:
                group["lr"] = group["initial"] * (1 + math.cos(math.pi * step / steps)) / 2
            optimiser.zero_grad()
            parts = problem.train[places.pop()]
            num = sum(len(problem.targets[part][0]) for part in parts)
            for part in parts:
                loss = _squares(problem.outputs(part), problem.targets[part]) / (num * spread)
                loss.backward()
            optimiser.step()
            taken += 1
            advance(1)
            if (step + 1) % every == 0 or step + 1 == steps:
                now = _error(problem) / spread
                if now < best:
                    best = now
                    kept = [parameter.detach().clone() for parameter in problem.parameters]
    finally:  # also where a step fails
        with torch.no_grad():
            for parameter, value in zip(problem.parameters, kept, strict=True):
                parameter.copy_(value)
    return Tuned(before, best, taken)


def _scale(parameter: Tensor) -> float:
    """The root mean square of a parameter's values, which is its step size's measure."""
    return max(float(parameter.detach().square().mean().sqrt()), LEAST_SCALE)


def _squares(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The sum of squared differences."""
    parts = [
        (output - target).square().sum() for output, target in zip(outputs, targets, strict=True)
    ]
    return torch.stack(parts).sum()


@torch.no_grad()
def _error(problem: Problem) -> float:
    """The mean squared difference of a sample left out, summed over its values."""
    num = sum(len(problem.targets[part][0]) for part in problem.left_out)
    squares = [
        float(_squares(problem.outputs(part), problem.targets[part])) for part in problem.left_out
    ]
    return sum(squares) / num


def _spread(targets: Sequence[Sequence[Tensor]]) -> float:
    """The variance over samples and places of the targets, as `_error` sums it."""
    num = sum(len(part[0]) for part in targets)
    total = 0.0
    for place in range(len(targets[0])):
        parts = [part[place].double() for part in targets]
        values = sum(part.numel() for part in parts)
        mean = sum(float(part.sum()) for part in parts) / values
        total += sum(float((part - mean).square().sum()) for part in parts)
    return max(total / num, torch.finfo(torch.float32).tiny)
