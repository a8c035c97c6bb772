"""A module cut by Secateurs: half of the units of every group go, and no weight is changed."""

from __future__ import annotations

from typing import Any

import torch
from shapes.entry import run
from torch import nn

from secateurs.nets.attention import open_attention
from secateurs.nets.trace import copied
from secateurs.prune.coupling.groups import Groups, find_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import narrow


def halved(model: nn.Module, inputs: Any) -> tuple[nn.Module, Groups]:
    """The module without every other unit of each group, and the groups."""
    network = open_attention(copied(model))
    groups = checked(network, find_groups(network, inputs, run=run), inputs, run=run)
    survivors = {group.name: torch.arange(group.num_units)[1::2] for group in groups.found}
    return narrow(network, groups.found, survivors), groups
