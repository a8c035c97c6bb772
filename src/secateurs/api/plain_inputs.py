"""Inputs of an exported file: tuples and mappings in the place of records of a user's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from secateurs.nets.trace import record_fields


def plain(inputs: Any) -> Any:
    """Named tuples as tuples, dataclasses and namespaces as mappings of their fields, nested.

    >>> from types import SimpleNamespace
    >>> plain((SimpleNamespace(x=1), [2]))
    ({'x': 1}, [2])
    """
    if isinstance(inputs, Mapping):
        return {key: plain(part) for key, part in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(plain(part) for part in inputs)
    if isinstance(inputs, list):
        return [plain(part) for part in inputs]
    names = record_fields(inputs)
    return {name: plain(getattr(inputs, name)) for name in names} if names else inputs


def is_plain(inputs: Any) -> bool:
    """Whether inputs are tensors, numbers and None in tuples, lists and mappings, nested."""
    if isinstance(inputs, Mapping):
        return all(map(is_plain, inputs.values()))
    if isinstance(inputs, tuple | list):
        return not hasattr(inputs, "_fields") and all(map(is_plain, inputs))
    return not record_fields(inputs)


class WithRecords(nn.Module):
    """A network called with plain inputs, which it gets as records like those of an example."""

    def __init__(self, network: nn.Module, example: Any) -> None:
        super().__init__()
        self.network = network
        self.example = example  # positional inputs, or keywords

    def forward(self, *args: Any, **words: Any) -> Any:
        """Call the network with records made of plain inputs."""
        if isinstance(self.example, Mapping):
            return self.network(**{key: _like(self.example[key], words[key]) for key in words})
        return self.network(*map(_like, self.example, args))


def _like(example: Any, found: Any) -> Any:
    """What `plain` made of inputs, with the types of an example again."""
    if isinstance(example, Mapping):
        return {key: _like(part, found[key]) for key, part in example.items()}
    if isinstance(example, tuple | list):
        parts = [_like(part, other) for part, other in zip(example, found, strict=True)]
        return type(example)(*parts) if hasattr(example, "_fields") else type(example)(parts)
    names = record_fields(example)
    if not names:
        return found
    record = copy.copy(example)
    for name in names:
        object.__setattr__(record, name, _like(getattr(example, name), found[name]))
    return record
