"""Samples in parts, and what modules receive and give for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateurs.nets.batches import Batch, copied_batch, map_tensors, num_samples, samples
from secateurs.nets.trace import eval_mode, python_modules, tensors_of


class _Reached(Exception):
    """What was asked for has run: the rest of the network is not needed."""


def received_or_given(
    model: nn.Module,
    path: str,
    part: Batch,
    run: Callable[[nn.Module, Batch], object],
    *,
    before: bool,
) -> Any:
    """What a module is given (`before`: its arguments and keywords) or returns, copied."""
    found: list[Any] = []

    def receive(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        found.append(map_tensors((args, kwargs), lambda tensor: tensor.detach().clone()))
        raise _Reached

    def give(_: nn.Module, __: Any, output: Any) -> None:
        found.append(map_tensors(output, lambda tensor: tensor.detach().clone()))
        raise _Reached

    module = model.get_submodule(path)
    if before:
        handle = module.register_forward_pre_hook(receive, with_kwargs=True)
    else:
        handle = module.register_forward_hook(give)
    try:
        with torch.no_grad(), eval_mode(model):
            run(model, copied_batch(part))
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0] if found else None


def values_of(model: nn.Module, sample: Batch, run: Callable[[nn.Module, Batch], object]) -> int:
    """How many values the modules without parts give for a sample.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> values_of(net, torch.zeros(1, 2), lambda model, x: model(x))
    6
    """
    total = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal total
        total += sum(tensor.numel() for tensor in tensors_of(output))

    leaves = [module for _, module in python_modules(model) if not any(module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        with torch.no_grad(), eval_mode(model):
            run(model, copied_batch(sample))
    finally:
        for handle in handles:
            handle.remove()
    return total


def spaced(batches: Sequence[Batch], most: int) -> list[Batch]:
    """At most so many samples, every k-th of all batches.

    >>> [part.tolist() for part in spaced([torch.arange(4), torch.arange(4, 7)], 4)]
    [[0, 2], [4, 6]]
    """
    every = -(-sum(map(num_samples, batches)) // most)
    found: list[Batch] = []
    start = 0
    for batch in batches:
        places = torch.arange(-start % every, num_samples(batch), every)
        start += num_samples(batch)
        if len(places):
            found.append(batch if every == 1 else samples(batch, places))
    return found


def in_turns(train: Sequence[Batch], left_out: Sequence[Batch]) -> tuple[list[Batch], list[bool]]:
    """Parts of both kinds mixed evenly, and which of them are left out."""
    places = [((k + 0.5) / len(train), False, part) for k, part in enumerate(train)]
    places += [((k + 0.5) / len(left_out), True, part) for k, part in enumerate(left_out)]
    places.sort(key=lambda place: place[:2])
    return [part for _, _, part in places], [left for _, left, _ in places]


def grouped(places: Sequence[int], parts: Sequence[Batch], batch: int) -> list[list[int]]:
    """Parts that are run for one step: about so many samples together."""
    found: list[list[int]] = []
    count = batch
    for place in places:
        if count >= batch:
            found.append([])
            count = 0
        found[-1].append(place)
        count += num_samples(parts[place])
    return found
