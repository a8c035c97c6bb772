"""Merging: one unit in the place of a group, with the group's mean incoming weights.

A single unit carries what its group has in common and noise of its own, left from its random
initialisation; the mean of the group's incoming weights keeps the first and averages the second
out. The outgoing weights are then refitted to what the next layer received before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.compensation.outgoing_weights import RIDGES, Outgoing, refit
from secateurs.prune.selection.pairwise import Selection

COLUMNS = 1024  # of the incoming weights converted to float64 at a time


@dataclass(frozen=True)
class Incoming:
    """New weight (kept, inputs) and bias (kept,) or None of the layer whose units are merged."""

    weight: Tensor
    bias: Tensor | None


def groups(selection: Selection) -> Tensor:
    """For each unit the place of its survivor among the survivors, (units,) int64; -1 for none.

    A removed unit without a parent, or more than 90 degrees from it, belongs to no group.
    """
    place = torch.full_like(selection.dead, -1, dtype=torch.int64)
    place[selection.survivors] = torch.arange(len(selection.survivors), device=place.device)
    belongs = (selection.parent >= 0) & ~(selection.angle_deg > 90)
    place[selection.removed[belongs]] = place[selection.parent[belongs]]
    return place


def merge_incoming(weight: Tensor, bias: Tensor | None, selection: Selection) -> Incoming:
    """Mean of each group's incoming weights (units, inputs) and bias (units,) or None.

    In the type of the weight, computed in float64. Raises InputError when a shape does not fit.
    """
    units = selection.num_units
    if weight.ndim != 2 or len(weight) != units:
        raise InputError(f"weight: expected ({units}, inputs), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != (units,):
        raise InputError(f"bias: expected ({units},), got {tuple(bias.shape)}")
    kept, place = len(selection.survivors), groups(selection)
    merged = torch.empty(kept, weight.shape[1], dtype=weight.dtype, device=weight.device)
    for part in torch.arange(weight.shape[1], device=weight.device).split(COLUMNS):
        columns = slice(int(part[0]), int(part[-1]) + 1)
        merged[:, columns] = group_means(weight[:, columns].detach(), place, kept).to(weight.dtype)
    if bias is None:
        return Incoming(merged, None)
    return Incoming(merged, group_means(bias.detach()[:, None], place, kept)[:, 0].to(bias.dtype))


def merge(
    before: Tensor,
    after: Callable[[Tensor], Tensor],
    incoming: Incoming,
    weight: Tensor,
    bias: Tensor | None,
    selection: Selection,
    *,
    target: Tensor | None = None,
    ridges: Sequence[float] = RIDGES,
    copies: int = 1,
) -> tuple[Incoming, Outgoing]:
    """One unit for each group of `selection`: mean incoming weights, outgoing ones refitted.

    `before` (samples, units) is the layer's output before the elementwise `after` that follows it,
    `incoming` its present weights, `weight` (outputs, units) and `bias` (outputs,) or None those of
    the next layer. The mean weights give the mean of a group's outputs, so nothing is run again.
    The refit is `compensation.least_squares` on the merged units, anchored to the sums of the
    groups' outgoing weights (Gedeon and Harris), with `target` (samples, outputs) by default what
    the next layer gave. Raises InputError as it does.

    >>> from secateurs.prune.selection.pairwise import pairwise
    >>> z, w = torch.tensor([[1.0, 1.0, 0.0], [3.0, 3.0, -1.0], [0.0, 0.0, 2.0]]), torch.eye(3)
    >>> chosen = pairwise(z.relu(), low_deg=1, normalise="none")
    >>> new, out = merge(z, torch.relu, Incoming(w, None), torch.ones(1, 3), None, chosen)
    >>> new.weight.tolist(), [round(v, 3) for v in out.weight.flatten().tolist()]
    ([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [2.0, 1.0])
    """
    activations = after(before)
    place, kept = groups(selection), len(selection.survivors)
    if activations.shape != (len(before), selection.num_units):
        raise InputError(
            f"before: expected (samples, {selection.num_units}), got {tuple(before.shape)}"
        )
    if weight.ndim != 2 or weight.shape[1] != selection.num_units:
        raise InputError(
            f"weight: expected (outputs, {selection.num_units}), got {tuple(weight.shape)}"
        )
    if target is None:
        target = activations.double() @ weight.double().T
        target += 0 if bias is None else bias.double()
    merged = merged_outputs(before, after, selection)
    anchor = group_sums(weight.double().T, place, kept).T  # (outputs, kept)
    new = refit(merged.double(), anchor, target, ridges, copies=copies)
    outgoing = Outgoing(new.weight.to(weight.dtype), new.bias.to(weight.dtype), new.ridge)
    return merge_incoming(incoming.weight, incoming.bias, selection), outgoing


def merged_outputs(
    before: Tensor, after: Callable[[Tensor], Tensor], selection: Selection
) -> Tensor:
    """What the next layer receives from the merged units, (samples, kept)."""
    means = group_means(before.T, groups(selection), len(selection.survivors))
    return after(means.T.to(before.dtype))


def group_sums(rows: Tensor, place: Tensor, kept: int) -> Tensor:
    """Sums (kept, columns), float64, of the rows of each group."""
    inside = (place >= 0).nonzero().flatten()
    total = torch.zeros(kept, rows.shape[1], dtype=torch.float64, device=rows.device)
    return total.index_add_(0, place[inside], rows[inside].double())


def group_means(rows: Tensor, place: Tensor, kept: int) -> Tensor:
    """Means (kept, columns), float64, of the rows of each group."""
    sizes = torch.bincount(place[place >= 0], minlength=kept)
    return group_sums(rows, place, kept) / sizes[:, None]
