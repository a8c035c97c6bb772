"""Batch norm statistics of a pruned network: kept, scaled to what the refit gives, or measured.

A refit by least squares matches what each layer gave before, on the statistics that the network
had. Statistics measured again on a few hundred samples then undo the match. Without a refit the
outputs shrink, and measured statistics repair that. Which of the two prevails depends on the
network, so the outputs of the unpruned network decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import (
    Batch,
    Run,
    Whole,
    forward,
    joined,
    num_samples,
    samples,
    shape_words,
)
from secateurs.nets.layers import BATCH_NORMS
from secateurs.nets.trace import eval_mode, tensors_of

LEAST_SPREAD = 1e-3  # of outputs over samples, relative to their root mean square
MOST_VALUES = 16384  # outputs of a sample that are compared
TINY = torch.finfo(torch.float64).tiny
PLAIN = {norm.forward for norm in BATCH_NORMS}  # of classes that do no more than torch's
Statistics = Literal["kept", "implied", "measured"]


@dataclass(frozen=True)
class Change:
    """How far a network's outputs are from those of the network that it was made from.

    `squared` is the mean over samples of the squared difference, summed over the outputs;
    `relative` is that divided by the variance of the unpruned network's outputs over the samples,
    summed likewise. Outputs that vary by less than a thousandth of their root mean square count as
    varying by that much: below, differences are of rounding. Of a single sample, which has no
    variance, it is divided by the sum of squares.
    """

    squared: float
    relative: float


@dataclass(frozen=True)
class NormChoice:
    """Which statistics were taken, and the change of the outputs under each that was tried."""

    chosen: Statistics
    tried: dict[Statistics, Change]


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norm layers that keep running statistics, by path.

    >>> list(norm_layers(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))))
    ['1']
    """
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None
    }


def change_of(outputs: Tensor, whole: Tensor) -> Change:
    """The change from `whole` to `outputs`, both (samples, ...), in float64.

    >>> change_of(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]]))
    Change(squared=0.5, relative=2.0)
    """
    before = whole.double().flatten(1)
    scale = float(before.abs().amax().clamp(min=TINY))
    before = before / scale  # squares of very large and very small outputs stay in range
    away = outputs.double().flatten(1) / scale - before
    squared = float(away.square().sum(1).mean())
    center = before.mean(0) if len(before) > 1 else 0.0
    spread = float((before - center).square().sum(1).mean())
    least = LEAST_SPREAD**2 * float(before.square().sum(1).mean())
    relative = 0.0 if squared == 0 else squared / max(spread, least, TINY)
    return Change(squared * scale**2, relative)


@torch.no_grad()
def outputs_of(model: nn.Module, batches: Sequence[Batch], *, run: Run = forward) -> Tensor:
    """The outputs (samples, values) of a network in eval mode for all batches, on the CPU.

    Floating-point tensors of the outputs side by side. Of more than `MOST_VALUES` a sample some are
    drawn, the same for every network with as many, and scaled so that squares sum to as much; where
    samples of some batches have fewer values, so many are drawn of all. Samples may be along the
    second axis; where none of the tensors has them, as a mean over the batch, each has all values.
    Raises InputError where the network gives no floating-point tensor.
    """
    parts: list[Tensor] = []
    with eval_mode(model):
        for batch in batches:
            num = num_samples(batch)
            given = [t for t in tensors_of(run(model, batch)) if t.is_floating_point()]
            if isinstance(batch, Whole):  # rows of what it gives in the place of samples
                num = next((len(t) for t in given if t.ndim), num)
            rows = [row for tensor in given if (row := _by_sample(tensor, num)) is not None]
            rows = rows or [t.reshape(1, -1).expand(num, -1) for t in given if t.numel()]
            if not rows:
                raise InputError("the network gives no tensor of numbers")
            parts.append(_drawn(torch.cat([row.float() for row in rows], 1).cpu(), MOST_VALUES))
    fewest = min(part.shape[1] for part in parts)
    return torch.cat([_drawn(part, fewest) for part in parts])


def _by_sample(tensor: Tensor, num: int) -> Tensor | None:
    """A tensor's values (num, values) by sample; None where none of its first axes has samples."""
    if tensor.ndim and len(tensor) % num == 0:
        return tensor.reshape(num, -1)
    if tensor.ndim > 1 and tensor.shape[1] == num:  # as of sequences, step by step
        return tensor.movedim(1, 0).reshape(num, -1)
    return None


def _drawn(values: Tensor, most: int) -> Tensor:
    """At most `most` columns of (samples, values), scaled to the same sum of squares."""
    num = values.shape[1]
    if num <= most:
        return values
    generator = torch.Generator().manual_seed(num)
    columns = torch.randperm(num, generator=generator)[:most].sort().values
    return values[:, columns] * math.sqrt(num / most)


@torch.no_grad()
def measure_norms(model: nn.Module, batches: Sequence[Batch], *, run: Run = forward) -> None:
    """Measure the statistics of every batch norm again, in place.

    Mean and variance are pooled over all samples (Chan, Golub and LeVeque, 1983) in one pass, in
    which each batch is normalised by its own moments: batches should be shuffled, each with its
    share of every class. Dropout stays off. A batch of one sample joins another whose samples have
    the same size, and is left out where there is none and a norm needs two. Nothing happens in a
    network without batch norm, or where there is only one sample.
    """
    norms = norm_layers(model)
    if not norms or sum(num_samples(batch) for batch in batches) < 2:
        return
    pools = {path: _Pool() for path in norms}

    def watch(path: str, norm: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def before(_: nn.Module, received: tuple[Tensor, ...]) -> None:
            rows = received[0].double().transpose(0, 1).flatten(1)  # (channels, values)
            variance, mean = torch.var_mean(rows, 1, correction=0)
            pools[path].add(rows.shape[1], mean, variance)

        def after(_: nn.Module, received: tuple[Tensor, ...], __: object) -> None:
            # With a momentum of 1 the norm has just written the moments of this batch.
            mean, variance = (part.double() for part in _statistics(norm))
            num = received[0].numel() // len(mean)
            pools[path].add(num, mean, variance * ((num - 1) / num))

        if type(norm).forward in PLAIN:
            return norm.register_forward_hook(after)
        return norm.register_forward_pre_hook(before)

    saved = {path: _statistics(norm) for path, norm in norms.items()}
    counts = {path: _count(norm) for path, norm in norms.items()}
    momenta: dict[str, Any] = {path: norm.momentum for path, norm in norms.items()}
    one: Any = 1.0
    handles = [watch(path, norm) for path, norm in norms.items()]
    try:
        with eval_mode(model):
            for path, norm in norms.items():
                norm.train()
                norm.momentum = one
                _write(norm, *(torch.zeros_like(part) for part in saved[path]))
            for batch in _without_single(batches):
                try:
                    run(model, batch)
                except ValueError:  # a norm without positions needs two samples
                    if num_samples(batch) > 1:
                        raise
    finally:
        for handle in handles:
            handle.remove()
        # A training pass has moved the statistics on; only the pooled ones are wanted.
        for path, norm in norms.items():
            _write(norm, *saved[path])
            norm.num_batches_tracked, norm.momentum = counts[path], momenta[path]
    for path, norm in norms.items():
        if pools[path].num > 1:
            mean, variance = pools[path].moments()
            _write(norm, mean, variance)


class _Pool:
    """The mean and the summed squared deviations of each channel, over several batches."""

    def __init__(self) -> None:
        self.num = 0
        self.mean = self.squares = torch.zeros(0)

    def add(self, num: int, mean: Tensor, variance: Tensor) -> None:
        """Take in so many values of each channel, with their mean and variance (channels,)."""
        if not self.num:
            self.num, self.mean, self.squares = num, mean, variance * num
            return
        total = self.num + num
        step = mean - self.mean
        self.squares = self.squares + variance * num + step.square() * (self.num * num / total)
        self.mean = self.mean + step * (num / total)
        self.num = total

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance (channels,)."""
        return self.mean, self.squares / (self.num - 1)


def _without_single(batches: Sequence[Batch]) -> list[Batch]:
    """The batches, each of one sample joined to another whose samples are of its size."""
    found: list[list[Batch]] = []
    last: dict[str, list[Batch]] = {}  # by the shapes of a sample
    for batch in sorted(batches, key=lambda batch: num_samples(batch) == 1):
        shapes = shape_words(samples(batch, slice(0, 1)))
        if num_samples(batch) > 1 or shapes not in last or isinstance(batch, Whole):
            last[shapes] = []
            found.append(last[shapes])
        last[shapes].append(batch)
    return [joined(parts) if len(parts) > 1 else parts[0] for parts in found]


def _statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    assert isinstance(mean, Tensor) and isinstance(variance, Tensor)
    return mean.clone(), variance.clone()


def _count(norm: nn.Module) -> Tensor:
    count = norm.num_batches_tracked
    assert isinstance(count, Tensor)
    return count.clone()


def _write(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    running_mean, running_var = norm.running_mean, norm.running_var
    assert isinstance(running_mean, Tensor) and isinstance(running_var, Tensor)
    with torch.no_grad():
        running_mean.copy_(mean)
        running_var.copy_(variance)


def settle_norms(
    model: nn.Module,
    whole: Tensor,
    held_out: Sequence[Batch],
    calibration: Sequence[Batch],
    *,
    implied: Mapping[str, Tensor] | None = None,
    run: Run = forward,
) -> NormChoice:
    """Give a pruned network, in place, the batch norm statistics that change its outputs the least.

    Tried are the statistics that it has ("kept"); those with the variances multiplied by `implied`,
    a factor (channels,) by path of a batch norm, which is the variance of a refitted layer's
    outputs relative to what it was ("implied"); and those measured again on the `calibration`
    batches ("measured"). `whole` are the unpruned network's outputs on the `held_out` batches, for
    which samples that no refit has seen are best. Statistics other than those kept are taken only
    where the outputs are strictly nearer. Raises InputError when no outcome is finite.
    """
    norms = norm_layers(model)

    def tried() -> Change:
        return change_of(outputs_of(model, held_out, run=run), whole)

    states = {path: _statistics(norm) for path, norm in norms.items()}
    found: dict[Statistics, Change] = {"kept": tried()}
    best: Statistics = "kept"
    options: list[Statistics] = ["implied", "measured"] if implied else ["measured"]
    candidates: dict[Statistics, dict[str, tuple[Tensor, Tensor]]] = {"kept": states}
    for option in options if norms else []:
        for path, norm in norms.items():
            mean, variance = states[path]
            if option == "implied" and implied and path in implied:
                variance = variance * implied[path].to(variance)
            _write(norm, mean, variance)
        if option == "measured":
            measure_norms(model, calibration, run=run)
        candidates[option] = {path: _statistics(norm) for path, norm in norms.items()}
        found[option] = tried()
        if _nearer(found[option], found[best]):
            best = option
    for path, norm in norms.items():
        _write(norm, *candidates[best][path])
    if not torch.tensor(found[best].squared).isfinite():
        raise InputError("the pruned network's outputs are not finite on the images given")
    return NormChoice(best, found)


def _nearer(one: Change, other: Change) -> bool:
    # A comparison with NaN is false: what is not finite is never nearer.
    return one.squared < other.squared or (
        one.squared == one.squared and other.squared != other.squared
    )
