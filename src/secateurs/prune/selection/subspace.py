"""Selection by the angle between a unit and the span of the survivors."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import Selection, make_selection
from secateurs.prune.similarity.normalise import Directions, Normalise, contribution, directions

RANK = 1e-13  # squared sine below which float64 cannot tell a vector from the span


def subspace(
    activations: Tensor,
    *,
    angle_deg: float | None = None,
    keep: int | None = None,
    normalise: Normalise = "centre",
    weight: Tensor | None = None,
) -> Selection:
    """Keep units until every other one is within `angle_deg` of their span, or `keep` are kept.

    `activations` is (samples, units). Each step takes the unit with the largest part outside the
    span so far, times the length of its column in the outgoing `weight` (outputs, units) when one
    is given: pivoted Cholesky on the Gram matrix (Golub and Van Loan, section 4.2.8), whose columns
    are made when needed. The bias of the next layer supplies the constant vector, hence `centre`.
    Dead and constant units go first. The selection's `span_deg` is the angle of every removed unit
    to the span. Raises InputError as `similar_pairs` does, unless one of the two limits is given
    and in range (0..90 degrees, at least one unit), and when the weight has another size.

    >>> x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    >>> chosen = subspace(x, angle_deg=1, normalise="none")
    >>> chosen.survivors.tolist(), chosen.span_deg.round(decimals=3).tolist()
    ([0, 2], [0.0])
    """
    if angle_deg is None and keep is None:
        raise InputError("subspace: expected angle_deg or keep, or both")
    if angle_deg is not None and not 0 <= angle_deg <= 90:
        raise InputError(f"angle_deg: expected within 0..90 degrees, got {angle_deg}")
    if keep is not None and keep < 1:
        raise InputError(f"keep: expected at least 1 unit, got {keep}")
    source = directions(activations, normalise=normalise)
    size = contribution(source, weight)
    units = (source.live & (source.norm > 0)).nonzero().flatten()
    order, outside = _pivots(source, units, size[units], angle_deg, keep)
    alive = torch.zeros_like(source.dead)
    alive[units[order]] = True
    span = torch.full_like(source.norm, float("nan"))
    span[units] = outside.clamp(0, 1).sqrt().asin().rad2deg()
    selection = make_selection("subspace", source, alive)
    return replace(selection, span_deg=span[selection.removed])


def _pivots(
    source: Directions, units: Tensor, size: Tensor, angle_deg: float | None, keep: int | None
) -> tuple[Tensor, Tensor]:
    """Positions in `units` of the pivots, in order, and all units' squared sines to their span."""
    limit = RANK
    if angle_deg is not None:
        limit = max(limit, float(torch.tensor(angle_deg).double().deg2rad().sin().square()))
    most = len(units) if keep is None else min(keep, len(units))
    most = min(most, source.num_samples)  # the rank
    exact = source.exact(units)  # (units, samples) float64
    # With many samples each column of the Gram matrix would cost more than the whole of it.
    gram = exact @ exact.T if source.num_samples > 2 * len(units) else None
    factor = torch.empty(most, len(units), dtype=torch.float64, device=units.device)
    outside = torch.ones_like(size)
    order: list[int] = []
    for step in range(most):
        worth = torch.where(outside > limit, outside * size.square(), -1.0)
        pivot = int(worth.argmax())
        if float(worth[pivot]) < 0:
            break
        column = exact @ exact[pivot] if gram is None else gram[pivot]
        before = factor[:step]
        row = (column - before[:, pivot] @ before) / outside[pivot].sqrt()
        factor[step] = row
        outside = (outside - row.square()).clamp_(min=0)
        outside[pivot] = 0.0
        order.append(pivot)
    return torch.tensor(order, dtype=torch.int64, device=units.device), outside
