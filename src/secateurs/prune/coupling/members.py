"""Units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Side = Literal["out", "in", "both"]


@dataclass(frozen=True)
class Member:
    """A layer's share in a group: channel `index[k]` of it belongs to unit `unit[k]`.

    Side "out" is a layer that makes the units, "in" one that reads them, "both" one that passes
    them on channel by channel (batch norm, a depthwise or grouped convolution).
    """

    path: str
    side: Side
    index: Tensor  # (channels,) int64, ascending
    unit: Tensor  # (channels,) int64
    tensor: str = ""
    axis: int = 0
    norm: bool = False

    @property
    def label(self) -> str:
        """The layer's path, or the name of a parameter that is a module's own."""
        if self.is_layer or (self.path and self.tensor.startswith(("weight", "bias"))):
            return self.path
        return f"{self.path}.{self.tensor}".lstrip(".")

    @property
    def is_layer(self) -> bool:
        """Whether it is all of a layer, and no single parameter."""
        return not self.tensor


@dataclass(frozen=True)
class Attribute:
    """An attribute of the module `path`, a whole number that is `each` for every unit of a group.

    Of a tuple or list of whole numbers `each` has one for every entry, 0 for those that stay.
    """

    path: str
    name: str
    each: int | tuple[int, ...]

    def of(self, value: Any, num_units: int) -> Any:
        """What the attribute is with so many units, `value` being what it is.

        >>> Attribute("norm", "normalized_shape", (2, 0)).of((8, 5), 3)
        (6, 5)
        """
        if isinstance(self.each, int):
            return self.each * num_units
        pairs = zip(self.each, value, strict=True)
        return type(value)([each * num_units or entry for each, entry in pairs])


@dataclass(frozen=True)
class Group:
    """Units that are removed together wherever they appear, named after the first layer's path.

    `attributes` are numbers that modules keep of themselves and that change with the units left.
    With `at_source` a sum or a product goes over the units too, which no layer reads: a unit is
    zero where it is made. Groups that are `second` go along another axis of some tensor than others
    could (see `follow`).
    """

    name: str
    num_units: int
    members: tuple[Member, ...]
    attributes: tuple[Attribute, ...] = ()
    at_source: bool = False
    second: bool = False

    def side(self, side: Side) -> tuple[Member, ...]:
        """The layers of one side."""
        return tuple(m for m in self.members if m.side == side and m.is_layer)

    @property
    def makers(self) -> tuple[Member, ...]:
        """The layers, and parameters used as such, that make the units."""
        return tuple(member for member in self.members if member.side == "out")

    @property
    def is_norm_width(self) -> bool:
        """Whether a norm works over all of its units, so that its statistics change with them."""
        return any(member.norm for member in self.members)


@dataclass(frozen=True)
class NotPruned:
    """A group that is not pruned, and why."""

    name: str
    reason: str
