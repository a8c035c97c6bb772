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
from secateurs.prune.selection import Selection

RIDGES = tuple(10.0**k for k in range(-8, 3))  # relative to the mean squared singular value


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
) -> Outgoing:
    """Refit the survivors' outgoing weights and the bias to what the next layer received before.

    Minimises |A_s (W_s + D)' + b - T|^2 + ridge * mean(s^2) * |D|^2 over D and b, with A_s the
    survivors' activations, W_s their present weights (the anchor), s the singular values of A_s
    less its column means, and T the `target` (samples, outputs), by default A W' + bias. The ridge
    is the one of `ridges` with the least leave-one-out error, in closed form from the hat matrix
    (Allen's PRESS). Uses the smaller of the two Gram matrices, samples or survivors. Raises
    InputError when a shape does not fit or a ridge is not positive.
    """
    _check(activations, weight, bias, selection)
    if not ridges or min(ridges) <= 0:
        raise InputError(f"ridges: expected positive numbers, got {list(ridges)}")
    kept = activations[:, selection.survivors].double()  # (samples, kept)
    old = weight[:, selection.survivors].double()
    if target is None:
        gone = selection.removed
        missing = activations[:, gone].double() @ weight[:, gone].double().T
        missing += _bias(weight, bias)
    else:
        if target.shape != (len(activations), len(weight)):
            raise InputError(
                f"target: expected shape {(len(activations), len(weight))}, "
                f"got {tuple(target.shape)}"
            )
        missing = target.double() - kept @ old.T
    change, offset, ridge = fit_ridge(kept, missing, ridges)
    return Outgoing((old + change).to(weight.dtype), offset.to(weight.dtype), ridge)


def fit_ridge(x: Tensor, y: Tensor, ridges: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    """Ridge regression of y (samples, outputs) on x (samples, inputs), both float64.

    Returns the coefficients (outputs, inputs), the unpenalised intercept (outputs,) and the ridge
    with the least leave-one-out error, relative to the mean squared singular value of centred x.
    """
    samples, inputs = x.shape
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    # x = U S V'. Only U and S^2 decide the error; the coefficients follow for the ridge chosen.
    if inputs <= samples:
        squares, v = torch.linalg.eigh(x.T @ x)
        squares = squares.clamp_(min=0)
        u = x @ v / _root(squares)
    else:
        squares, u = torch.linalg.eigh(x @ x.T)
        squares = squares.clamp_(min=0)
        v = x.T @ u / _root(squares)
    significant = squares > squares.amax() * len(squares) * torch.finfo(torch.float64).eps
    squares, u, v = squares[significant], u[:, significant], v[:, significant]
    if len(squares) == 0:
        return torch.zeros_like(y[0])[:, None].expand(-1, inputs).clone(), y_mean, min(ridges)
    scale = float(squares.sum()) / min(samples, inputs)
    projected = u.T @ y  # (rank, outputs)
    errors: list[float] = []
    for ridge in ridges:
        shrink = squares / (squares + ridge * scale)
        residual = y - u @ (shrink[:, None] * projected)
        left = 1 - 1 / samples - u.square() @ shrink  # 1 less the diagonal of the hat matrix
        errors.append(float((residual / left.clamp(min=1e-12)[:, None]).square().sum()))
    ridge = ridges[errors.index(min(errors))]
    factor = squares.sqrt() / (squares + ridge * scale)
    change = (v @ (factor[:, None] * projected)).T
    return change, y_mean - change @ x_mean, ridge


def _root(squares: Tensor) -> Tensor:
    return squares.clamp(min=torch.finfo(torch.float64).tiny).sqrt()


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
