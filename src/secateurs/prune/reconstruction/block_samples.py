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


def received(
    model: nn.Module, path: str, part: Batch, run: Callable[[nn.Module, Batch], object]
) -> Any:
    """What a module is given: its arguments and keywords, copied. The rest does not run."""
    found: list[Any] = []

    def receive(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        found.append(_copied((args, kwargs)))
        raise _Reached

    handle = model.get_submodule(path).register_forward_pre_hook(receive, with_kwargs=True)
    return _run_with(model, part, run, found, [handle])


def given_by(
    model: nn.Module,
    path: str,
    part: Batch,
    run: Callable[[nn.Module, Batch], object],
    *,
    until: str | None = None,
) -> Any:
    """What a module returns, copied. The rest does not run, from the module `until` on if given."""
    found: list[Any] = []

    def give(_: nn.Module, __: Any, output: Any) -> None:
        found.append(_copied(output))
        if until is None:
            raise _Reached

    def end(*_: object) -> None:
        raise _Reached

    handles = [model.get_submodule(path).register_forward_hook(give)]
    if until is not None:
        handles.append(model.get_submodule(until).register_forward_pre_hook(end))
    return _run_with(model, part, run, found, handles)


def _run_with(
    model: nn.Module,
    part: Batch,
    run: Callable[[nn.Module, Batch], object],
    found: list[Any],
    handles: Sequence[torch.utils.hooks.RemovableHandle],
) -> Any:
    """What hooks have found first once a part has run."""
    try:
        with torch.no_grad(), eval_mode(model):
            run(model, copied_batch(part))
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def calls_of(
    model: nn.Module,
    spans: Sequence[tuple[str, str]],
    part: Batch,
    run: Callable[[nn.Module, Batch], object],
) -> list[tuple[Any, Any]]:
    """What the first module of each span is given and its last one returns, copied, in one run.

    None stands for what did not run.
    """
    given: dict[str, Any] = {}
    made: dict[str, Any] = {}

    def receive(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            given[path] = _copied((args, kwargs))

        return hook

    def give(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            made[path] = _copied(output)

        return hook

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for first, last in spans:
            module = model.get_submodule(first)
            handles.append(module.register_forward_pre_hook(receive(first), with_kwargs=True))
            handles.append(model.get_submodule(last).register_forward_hook(give(last)))
        with torch.no_grad(), eval_mode(model):
            run(model, copied_batch(part))
    finally:
        for handle in handles:
            handle.remove()
    return [(given.get(first), made.get(last)) for first, last in spans]


def _copied(value: Any) -> Any:
    return map_tensors(value, lambda tensor: tensor.detach().clone())


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
