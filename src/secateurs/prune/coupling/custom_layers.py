"""How units pass through layers of a user's own, where the operations within do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateurs.errors import InputError


@dataclass(frozen=True)
class PassThrough:
    """A layer whose output has the same channels as its input, each made of that channel alone.

    `axis` is that of the channels in its first argument and in its output. `tensors` are its
    parameters and buffers with one entry for each channel, by name, and the axis along which. A
    `norm` divides by statistics over all of its channels; with fewer of them it takes these over
    those that stay.
    """

    axis: int = 1
    tensors: Mapping[str, int] = field(default_factory=dict[str, int])
    norm: bool = False


_RULES: dict[type[nn.Module], PassThrough] = {}


def register(kind: type[nn.Module], rule: PassThrough) -> None:
    """Say how units pass through layers of a type, such as one whose kernel is written in C++.

    The rule holds for that type itself, in this process, and takes the place of following what the
    layer does. A rule that is wrong is found when its groups are checked, and they stay whole.
    Raises InputError for what is no type of module or no rule.

    >>> class Scale(nn.Module): ...
    >>> register(Scale, PassThrough(axis=-1, tensors={"weight": 0}))
    >>> rule_of(Scale()).axis
    -1
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):  # pyright: ignore
        raise InputError(f"register: expected a type of module, got {kind!r:.60}")
    if not isinstance(rule, PassThrough):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"register: expected a PassThrough, got {type(rule).__name__}")
    tensors: Any = rule.tensors
    if not isinstance(tensors, Mapping):
        raise InputError(f"PassThrough: expected axes by name, got {type(tensors).__name__}")
    for name, axis in {"axis": rule.axis, **tensors}.items():
        if type(axis) is not int:
            raise InputError(f"PassThrough: {name}: expected an axis, got {axis!r:.40}")
    _RULES[kind] = rule


def rule_of(module: nn.Module) -> PassThrough | None:
    """The rule that was registered for the type of a module, if any."""
    return _RULES.get(type(module))
