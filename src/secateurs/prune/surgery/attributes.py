"""Numbers that modules keep of their own widths, such as `num_heads` and `hidden_dim`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from secateurs.errors import InputError
from secateurs.prune.coupling.groups import Group
from secateurs.prune.coupling.members import Attribute
from secateurs.prune.surgery.parity import PARITY_LIMIT

NAMES = re.compile(
    r"dim|channel|feature|width|hidden|head|embed|d_model|planes|units|d_inner|_size"
)
NEVER = re.compile(r"image|patch|kernel|window|batch|vocab|grid|num_classes")
NORMS = ("normalized_shape", "num_groups")  # of norms, which may have no tensors
HEADS = re.compile(r"heads?$|nhead|n_head|^n?_?h$")


def with_attributes(
    model: nn.Module, group: Group, error: Callable[[Sequence[Group]], float]
) -> Group | None:
    """The group with the attributes that have to change with it, so that the network runs again.

    `error` of groups is at most `PARITY_LIMIT` where the network runs without some of their units,
    and gives what it gives with zeros in their place. Attributes are integers, and tuples of them,
    of the modules around the group's layers that are as many as its units or its channels: those
    that have a name as widths have, or else any, or those of the layers that make the units, or of
    others. None where the network does not run with any of them.
    """
    every = _candidates(model, group)
    named = [one for one in every if NAMES.search(one.name) or HEADS.search(one.name)]
    heads = [one for one in named if HEADS.search(one.name)]
    makers = {member.path for member in group.members if member.side != "in"}
    made = [one for one in every if one.path in makers]
    read = [one for one in every if one.path not in makers]
    tried: list[list[Attribute]] = []
    for attributes in (named, heads, every, made, read):
        if attributes and attributes not in tried:
            tried.append(attributes)
            changed = replace(group, attributes=tuple(attributes))
            if error([changed]) <= PARITY_LIMIT:
                return _fewest(changed, error)
    return None


def _fewest(group: Group, error: Callable[[Sequence[Group]], float]) -> Group:
    """The group without the attributes that the network runs without as well."""
    for attribute in group.attributes:
        others = tuple(other for other in group.attributes if other != attribute)
        if others and error([replace(group, attributes=others)]) <= PARITY_LIMIT:
            group = replace(group, attributes=others)
    return group


def _candidates(model: nn.Module, group: Group) -> list[Attribute]:
    counts = {group.num_units}
    around: dict[str, None] = {}
    for member in group.members:
        counts.add(len(member.index))
        path = member.path
        if not member.is_layer:
            around[path] = None
        while path:
            path = path.rpartition(".")[0]
            around[path] = None
    found: list[Attribute] = []
    for path in around:
        for name, value in vars(model.get_submodule(path)).items():
            if not _is_plain(value) or NEVER.search(name):
                continue
            # Of several heads that share keys and values there are more than units, not channels.
            heads = max(counts) if HEADS.search(name) else 0
            entries = value if isinstance(value, tuple | list) else [value]
            each = [
                one // group.num_units
                if one > 0 and not one % group.num_units and (one in counts or one < heads)
                else 0
                for one in entries
            ]
            if any(each):
                several = isinstance(value, tuple | list)
                found.append(Attribute(path, name, tuple(each) if several else each[0]))
    return found


def changed_attributes(
    before: nn.Module, after: nn.Module, groups: Sequence[Group] = ()
) -> dict[str, dict[str, Any]]:
    """Whole numbers, and tuples of them, that modules of a pruned network keep of their widths.

    By path and name, where they are smaller than those of the network before, and the module's own
    tensors have another shape, or the name is one of a width or among the attributes of the
    `groups`: a count of runs is no width. Plain data, from which `set_attributes` makes the same of
    a fresh network.

    >>> changed_attributes(nn.Linear(4, 3), nn.Linear(2, 3))
    {'': {'in_features': 2}}
    """
    others = dict(after.named_modules())
    given = {(one.path, one.name) for group in groups for one in group.attributes}
    found: dict[str, dict[str, Any]] = {}
    for path, module in before.named_modules():
        other = others.get(path)
        if other is None or type(other) is not type(module):
            continue
        cut = _shapes(module) != _shapes(other)
        for name, value in vars(module).items():
            now = vars(other).get(name)
            known = cut or NAMES.search(name) or name in NORMS or (path, name) in given
            if known and _is_smaller(now, value):
                found.setdefault(path, {})[name] = now
    return found


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return [tuple(tensor.shape) for tensor in own]


def _is_smaller(now: Any, before: Any) -> bool:
    """Whether a number, or one of a tuple, is smaller than before, and none is larger."""
    if not _is_plain(now) or not _is_plain(before) or type(now) is not type(before):
        return False
    several = isinstance(now, tuple | list)
    pairs = list(zip(now, before, strict=False)) if several else [(now, before)]
    same_length = not several or len(now) == len(before)
    return same_length and now != before and all(a <= b for a, b in pairs)


def set_attributes(model: nn.Module, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what `changed_attributes` found into a fresh network, in place.

    Raises InputError where the network has no such module or attribute.

    >>> layer = nn.Linear(4, 3)
    >>> set_attributes(layer, {"": {"in_features": 2}})
    >>> layer.in_features
    2
    """
    modules = dict(model.named_modules())
    for path, attributes in changes.items():
        module = modules.get(path)
        for name, value in attributes.items():
            before = getattr(module, name, None)
            if module is None or not _is_plain(before):
                raise InputError(f"weights of another model: {path} has no number {name!r}")
            several = isinstance(before, tuple | list)
            setattr(module, name, type(before)(value) if several else value)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return bool(value) and all(type(part) is int for part in value)
    return type(value) is int
