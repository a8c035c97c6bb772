"""Networks copied with the functions that they keep, which hold on to modules of theirs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import CellType, FunctionType
from typing import Any

import torch
from torch import nn


def deep_copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """What `copy.deepcopy` gives, whose functions hold on to modules and lists of the copy.

    `copy.deepcopy` takes functions as they are: a hook that puts a feature map into the network
    that made it, or a function that calls one of its layers, would still be the old network's.

    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(2, 2)
    ...         self.run = lambda x: self.layer(self.layer(x))
    >>> network = Twice()
    >>> other = deep_copied(network)
    >>> other.run.__closure__[0].cell_contents is other
    True
    """
    memo = {} if memo is None else memo
    found = {id(function): function for function in _functions(model) if id(function) not in memo}
    made: list[tuple[FunctionType, FunctionType]] = []
    for key, function in found.items():
        memo[key] = new = _with_empty_cells(function)
        made.append((function, new))
    result = copy.deepcopy(model, memo)
    for function, new in made:
        for before, cell in zip(function.__closure__ or (), new.__closure__ or (), strict=True):
            with suppress(ValueError):  # a name that was never given a value
                held = before.cell_contents
                cell.cell_contents = memo.get(id(held), held)
    return result


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    """The functions with names of their surroundings that modules keep, and those in these."""
    seen: set[int] = set()
    waiting: list[Any] = []
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for value in vars(module).values():
            waiting += value.values() if isinstance(value, Mapping) else [value]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, FunctionType) or not value.__closure__ or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        for cell in value.__closure__:
            with suppress(ValueError):
                waiting.append(cell.cell_contents)


def _with_empty_cells(function: FunctionType) -> FunctionType:
    cells = tuple(CellType() for _ in function.__closure__ or ())
    new = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    new.__kwdefaults__ = function.__kwdefaults__
    new.__dict__.update(function.__dict__)
    return new
