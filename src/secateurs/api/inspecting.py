"""What of a model can be pruned, what cannot and why, and what each part costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from secateurs.api.models import (
    call,
    call_with,
    check_runs,
    grouped,
    on_device,
    own_copy,
    run_with,
    samples_in_one,
    unwrapped,
)
from secateurs.api.settings import Settings
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import samples
from secateurs.prune.allocation.cost_model import Price, Widths
from secateurs.prune.coupling.groups import Group, NotPruned, find_groups
from secateurs.prune.eligible import unreadable, without
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.to_budget import CHECKED_SAMPLES


@dataclass(frozen=True)
class GroupRow:
    """A group of units that can only be removed together, and what it costs.

    `layers` are the paths of the layers that make, pass on or read the units; `macs` and
    `parameters` are the shares (0..1) of the network's that go when all but one unit go.
    """

    name: str
    num_units: int
    layers: tuple[str, ...]
    macs: float
    parameters: float


@dataclass(frozen=True)
class Inspection:
    """What of a network can be pruned; prints as a table.

    `macs` are multiply-accumulates for one sample.
    """

    groups: tuple[GroupRow, ...]
    not_pruned: tuple[NotPruned, ...]
    macs: int
    num_parameters: int

    def __str__(self) -> str:
        rows = [("group", "units", "MACs", "parameters", "layers")]
        rows += [
            (
                row.name,
                str(row.num_units),
                f"{row.macs:.1%}",
                f"{row.parameters:.1%}",
                ", ".join(row.layers[:3]) + (", ..." if len(row.layers) > 3 else ""),
            )
            for row in self.groups
        ]
        lines = [
            f"{self.num_parameters / 1e6:.2f} M parameters, {self.macs / 1e6:.1f} M "
            "multiply-accumulates for one sample",
            *_aligned(rows),
        ]
        lines += [f"not pruned: {left.name}: {left.reason}" for left in self.not_pruned]
        return "\n".join(lines)


def inspect(model: nn.Module, example_inputs: Any) -> Inspection:
    """List the groups of units that can be removed from a model, and what cannot be and why.

    `example_inputs` is what the model is called with: a tensor, a tuple of all arguments, or a
    mapping of keywords. Each group is checked on its first samples: units removed must give what
    units zeroed give. The model is not changed. Raises InputError where the model does not run on
    the inputs.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> [(row.name, row.num_units) for row in inspect(net, torch.rand(4, 8)).groups]
    [('0', 16)]
    """
    settings = Settings.now()
    with settings.put_aside(unwrapped(model)):
        network = open_attention(own_copy(model))
        inputs = on_device(call_with(example_inputs, network), network)
        count = settings.within(samples_in_one)(network, inputs, call)
        inputs = samples(grouped(inputs, count)[0], slice(0, CHECKED_SAMPLES))
        settings.within(check_runs)(network, inputs, call)
        run = settings.within(run_with(call, None))
        groups = find_groups(network, inputs, run=run)
        groups = without(groups, unreadable(network, groups, inputs, run))
        groups = checked(network, groups, inputs, run=run)
        widths = Widths(network, groups.found, inputs, run=run)
    return Inspection(
        tuple(_row(group, widths) for group in groups.found),
        groups.not_pruned,
        round(widths.total.macs / max(count, 1)),
        round(widths.total.parameters),
    )


def _row(group: Group, widths: Widths) -> GroupRow:
    saved: Price = widths.fraction(widths.saved(widths.whole, group.name, 1))
    layers = tuple(dict.fromkeys(member.label for member in group.members))
    return GroupRow(group.name, group.num_units, layers, saved.macs, saved.parameters)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
