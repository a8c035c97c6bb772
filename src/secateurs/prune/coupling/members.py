"""Units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Group:
    """Units that are removed together wherever they appear, named after the first layer's path."""

    name: str
    num_units: int
    members: tuple[Member, ...]

    def side(self, side: Side) -> tuple[Member, ...]:
        """The members of one side."""
        return tuple(member for member in self.members if member.side == side)


@dataclass(frozen=True)
class NotPruned:
    """A group that is not pruned, and why."""

    name: str
    reason: str
