"""Batches in parts that a processor runs faster than whole ones, and in less memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from secateurs.nets.batches import Batch, Run, copied_batch, num_samples, samples
from secateurs.nets.runnable import runnable
from secateurs.nets.trace import python_modules, tensors_of

# Bytes of the largest output of a module in one run. The C library gives larger blocks back to the
# system when they are freed; each run then waits for new pages, which takes a third of the time.
LARGEST = 24 * 2**20


def samples_at_once(model: nn.Module, example: Batch, run: Run) -> int | None:
    """How many samples to run at once, None where that makes no difference.

    So many that no module gives more than `LARGEST` bytes, found by a run on shapes.
    """
    if any(tensor.device.type != "cpu" for tensor in [*model.parameters(), *tensors_of(example)]):
        return None
    bare, sample = runnable(model, example, run)
    largest = 1

    def note(_: nn.Module, __: object, output: object) -> None:
        nonlocal largest
        sizes = [tensor.numel() * tensor.element_size() for tensor in tensors_of(output)]
        largest = max([largest, *sizes])

    for _, module in python_modules(bare):
        module.register_forward_hook(note)
    with torch.no_grad():
        run(bare, copied_batch(sample))
    return max(1, LARGEST // largest)


def parts_of(batch: Batch, at_once: int | None) -> list[Batch]:
    """A batch in parts of so many samples, itself where it has no more.

    >>> [len(part) for part in parts_of(torch.zeros(5, 2), 2)]
    [2, 2, 1]
    """
    num = num_samples(batch)
    if at_once is None or num <= at_once:
        return [batch]
    return [samples(batch, slice(at, at + at_once)) for at in range(0, num, at_once)]


def in_parts(batches: Sequence[Batch], at_once: int | None) -> list[Batch]:
    """The parts of all batches, in order."""
    return [part for batch in batches for part in parts_of(batch, at_once)]
