"""What the next layer's weights become when units are removed, from plain to refitted.

Each step takes the activations (samples, units) that the next layer received, its weight (outputs,
units) and bias (outputs,) or None, and a `Selection`; it returns the new weight (outputs, kept) and
bias, in the type of the weight, computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.compensation.ridge import RIDGES, fit_ridge
from secateurs.prune.selection.pairwise import Selection


@dataclass(frozen=True)
class Outgoing:
    """New weight (outputs, kept) and bias (outputs,) of the layer that reads the survivors."""

    weight: Tensor
    bias: Tensor
    ridge: float | None = None  # regularisation chosen, relative; None where there is none


def drop(
    activations: Tensor, weight: Tensor, bias: Tensor | None, selection: Selection
) -> Outgoing:
    """Leave the survivors' outgoing weights and the bias as they are."""
    _check(activations, weight, bias, selection)
    return Outgoing(weight[:, selection.survivors].clone(), _bias(weight, bias).to(weight.dtype))


def add(activations: Tensor, weight: Tensor, bias: Tensor | None, selection: Selection) -> Outgoing:
    """Sum each removed unit's outgoing weights into its parent's (Gedeon and Harris, 1995).

    The weights of an opposite unit (more than 90 degrees away) are subtracted, and the constant
    that the two sum to goes into the bias, as does the value of a constant unit.
    """
    _check(activations, weight, bias, selection)
    opposite = selection.angle_deg > 90
    slope = torch.where(opposite, -1.0, 1.0).double()
    mean = activations.mean(0, dtype=torch.float64)
    parent = selection.parent.clamp(min=0)
    offset = torch.where(opposite, mean[selection.removed] + mean[parent], 0.0)
    return _merge(activations, weight, bias, selection, slope, offset)


def affine(
    activations: Tensor, weight: Tensor, bias: Tensor | None, selection: Selection
) -> Outgoing:
    """Rebuild each removed unit as scale * parent + offset, both fitted by least squares.

    The scale goes into the parent's outgoing weights, the offset into the bias. A unit without a
    parent is rebuilt by its mean.
    """
    _check(activations, weight, bias, selection)
    parent = selection.parent.clamp(min=0)
    slope = torch.zeros_like(selection.angle_deg)
    offset = torch.zeros_like(selection.angle_deg)
    for start in range(0, len(parent), 1024):
        part = slice(start, start + 1024)
        x = activations[:, parent[part]].double()
        y = activations[:, selection.removed[part]].double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        x -= x_mean
        spread = x.square().sum(0)
        fitted = (x * (y - y_mean)).sum(0) / spread.clamp(min=torch.finfo(torch.float64).tiny)
        slope[part] = torch.where((spread > 0) & (selection.parent[part] >= 0), fitted, 0.0)
        offset[part] = y_mean - slope[part] * x_mean
    return _merge(activations, weight, bias, selection, slope, offset, orphans=True)


def least_squares(
    activations: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    selection: Selection,
    *,
    target: Tensor | None = None,
    ridges: Sequence[float] = RIDGES,
    copies: int = 1,
) -> Outgoing:
    """Refit the survivors' outgoing weights and the bias to what the next layer received before.

    Minimises |A_s (W_s + D)' + b - T|^2 + ridge * mean(s^2) * |D|^2 over D and b, with A_s the
    survivors' activations, W_s their present weights (the anchor), s the singular values of A_s
    less its column means, and T the `target` (samples, outputs), by default A W' + bias. The ridge
    is the one of `ridges` with the least leave-one-out error, in closed form from the hat matrix
    (Allen's PRESS); with `copies` the samples are so many views of the same images, view by view,
    left out together. Uses the smaller of the two Gram matrices, samples or survivors. Raises
    InputError when a shape does not fit or a ridge is not positive.
    """
    _check(activations, weight, bias, selection)
    kept = activations[:, selection.survivors].double()  # (samples, kept)
    old = weight[:, selection.survivors].double()
    if target is None:
        gone = selection.removed
        missing = activations[:, gone].double() @ weight[:, gone].double().T
        missing += _bias(weight, bias)
        change, offset, ridge = fit_ridge(kept, missing, ridges, copies=copies)
        new = Outgoing(old + change, offset, ridge)
    else:
        new = refit(kept, old, target, ridges, copies=copies)
    return Outgoing(new.weight.to(weight.dtype), new.bias.to(weight.dtype), new.ridge)


def refit(
    activations: Tensor,
    anchor: Tensor,
    target: Tensor,
    ridges: Sequence[float] = RIDGES,
    *,
    copies: int = 1,
) -> Outgoing:
    """Weights and bias, float64, that give `target` (samples, outputs) from (samples, kept).

    The ridge pulls towards the `anchor` (outputs, kept). Raises InputError when the shapes do not
    belong together.
    """
    if target.shape != (len(activations), len(anchor)):
        raise InputError(
            f"target: expected shape {(len(activations), len(anchor))}, got {tuple(target.shape)}"
        )
    missing = target.double() - activations.double() @ anchor.double().T
    change, offset, ridge = fit_ridge(activations, missing, ridges, copies=copies)
    return Outgoing(anchor.double() + change, offset, ridge)


def _merge(
    activations: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    selection: Selection,
    slope: Tensor,
    offset: Tensor,
    *,
    orphans: bool = False,
) -> Outgoing:
    """Put slope times each removed unit's weights on its parent, and its offset into the bias."""
    place = torch.full_like(selection.norm, -1, dtype=torch.int64)
    place[selection.survivors] = torch.arange(len(selection.survivors), device=place.device)
    outgoing = weight.double()
    moved = outgoing[:, selection.removed]
    new_bias = _bias(weight, bias)
    has = selection.parent >= 0
    new = outgoing[:, selection.survivors]
    new.index_add_(1, place[selection.parent[has]], moved[:, has] * slope[has])
    if not orphans:
        mean = activations[0, selection.removed].double()
        offset = torch.where(selection.constant[selection.removed], mean, offset)
        has = has | selection.constant[selection.removed]
        offset = torch.where(has, offset, 0.0)
    return Outgoing(new.to(weight.dtype), (new_bias + moved @ offset).to(weight.dtype))


def _bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The bias in float64, zeros when there is none."""
    if bias is None:
        return torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
    return bias.double()


def _check(activations: Tensor, weight: Tensor, bias: Tensor | None, selection: Selection) -> None:
    """Raise InputError unless the shapes belong together."""
    units = selection.num_units
    if activations.ndim != 2 or activations.shape[1] != units:
        raise InputError(
            f"activations: expected (samples, {units}), got {tuple(activations.shape)}"
        )
    if weight.ndim != 2 or weight.shape[1] != units:
        raise InputError(f"weight: expected (outputs, {units}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(f"bias: expected ({len(weight)},), got {tuple(bias.shape)}")
