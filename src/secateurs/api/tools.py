"""The paper's tools on plain tensors: angles between units, the survivors, their new weights.

Activations are (samples, units), as the next layer receives them. Of a convolution the samples are
all positions of all images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from secateurs.api.arguments import checked_tensor
from secateurs.errors import InputError
from secateurs.prune.compensation.outgoing_weights import Outgoing, add, affine, drop, least_squares
from secateurs.prune.selection.pairwise import Selection
from secateurs.prune.selection.rules import Rule, SelectOptions
from secateurs.prune.selection.rules import exactly as _exactly
from secateurs.prune.selection.rules import select as _select
from secateurs.prune.similarity.normalise import Normalise, directions

How = Literal["drop", "add", "affine", "least_squares"]
READ = {"l1": "incoming", "l2": "incoming", "geometric_median": "incoming", "taylor": "gradients"}


def angles(activations: Tensor, *, normalise: Normalise = "minmax") -> Tensor:
    """The angle between every two units, (units, units) in degrees 0..180, float64.

    `activations` is (samples, units). With `normalise` "minmax" the matrix is mapped to -0.5..0.5
    by its least and largest value first (Gedeon and Harris, 1995), with "centre" each unit's mean
    is subtracted, with "none" nothing is done. The angle of a unit without a direction, one that
    always gives the same value, is NaN. The matrix needs 8 bytes for each pair: for pairs near each
    other among many units see `similar_pairs`. Raises InputError on fewer than two samples, NaN or
    infinity.

    >>> angles(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), normalise="none").round().tolist()
    [[0.0, 0.0, 90.0], [0.0, 0.0, 90.0], [90.0, 90.0, 0.0]]
    """
    source = directions(checked_tensor(activations, "activations"), normalise=normalise)
    exact = source.exact(torch.arange(source.num_units, device=source.norm.device))
    found = (exact @ exact.T).clamp_(-1, 1).acos_().rad2deg_()
    found.fill_diagonal_(0.0)
    found[~source.live] = float("nan")
    found[:, ~source.live] = float("nan")
    return found


def select(
    activations: Tensor,
    rule: Rule = "pairwise",
    *,
    incoming: Tensor | None = None,
    outgoing: Tensor | None = None,
    gradients: Tensor | None = None,
    **options: Any,
) -> Selection:
    """Which units of a layer survive, and which of them stands for each that goes.

    `activations` is (samples, units). `options` are those of `SelectOptions`: `low_deg` (15) and
    `high_deg` (165) degrees for the rules by angle, or a number to `keep`, or a `keep_fraction`
    0..1. By "pairwise", the paper's rule, a unit goes that is nearer than `low_deg` or farther than
    `high_deg` to one that survives; by "cluster" units are grouped; "subspace" keeps units that
    span the others; "l1", "l2", "geometric_median" go by the layer's own weight `incoming`
    (units, inputs), "variance" by the activations, "taylor" by the loss's `gradients`
    (samples, units). "cluster" and "subspace" count units by the next layer's weight `outgoing`
    (outputs, units) where it is given. Raises InputError on bad options and missing tensors.

    >>> chosen = select(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.1, 3.0]]), normalise="none")
    >>> chosen.survivors.tolist(), chosen.removed.tolist(), chosen.parent.tolist()
    ([0, 2], [1], [0])
    """
    try:
        chosen = SelectOptions(rule=rule, **options)
    except TypeError as error:
        known = ", ".join(name for name in SelectOptions.__annotations__ if name != "rule")
        raise InputError(f"select: unknown option; there are {known}") from error
    chosen.check()
    checked_tensor(activations, "activations")
    for name, tensor in (
        ("incoming", incoming),
        ("outgoing", outgoing),
        ("gradients", gradients),
    ):
        if tensor is not None:
            checked_tensor(tensor, name, finite=True)
    given = {"incoming": incoming, "gradients": gradients}
    needed = READ.get(rule)
    if needed is not None and given[needed] is None:
        raise InputError(f"select: rule {rule} needs {needed}")
    units = activations.shape[-1] if activations.ndim else 0
    for name, tensor, axis in (("incoming", incoming, 0), ("outgoing", outgoing, 1)):
        if tensor is not None and (tensor.ndim != 2 or tensor.shape[axis] != units):
            shape = f"({units}, inputs)" if axis == 0 else f"(outputs, {units})"
            raise InputError(f"{name}: expected shape {shape}, got {tuple(tensor.shape)}")
    if outgoing is None:
        chosen = replace(chosen, weighted=False)
    nothing = activations.new_zeros(0)
    return _exactly(
        activations,
        chosen,
        lambda: _select(
            activations,
            nothing if incoming is None else incoming,
            nothing if outgoing is None else outgoing,
            chosen,
            gradients=gradients,
        ),
    )


def compensate(
    activations: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    selection: Selection,
    how: How = "least_squares",
) -> Outgoing:
    """The next layer's weight (outputs, kept) and bias (outputs,) once units are removed.

    `activations` (samples, units) are what it received, `weight` (outputs, units) and `bias`
    (outputs,) or None what it has. By "drop" the survivors' weights stay; by "add" those of each
    removed unit are added to those of its parent, or subtracted where it is opposite (Gedeon and
    Harris, 1995); by "affine" each is rebuilt as scale * parent + offset; by "least_squares" all
    weights are refitted to what the layer gave, the ridge chosen by leave-one-out errors. Raises
    InputError where the shapes do not belong together.

    >>> x, weight = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.5]]), torch.tensor([[1.0, 1.0]])
    >>> compensate(x, weight, None, select(x, normalise="none"), "add").weight
    tensor([[2.]])
    """
    if how not in get_args(How):
        raise InputError(f"how: expected one of {', '.join(get_args(How))}, got {how!r}")
    if not isinstance(selection, Selection):  # pyright: ignore[reportUnnecessaryIsInstance]
        given = type(selection).__name__
        raise InputError(f"selection: expected what `select` returns, got {given}")
    checked_tensor(activations, "activations", finite=True)
    checked_tensor(weight, "weight", finite=True)
    if bias is not None:
        checked_tensor(bias, "bias", finite=True)
    if activations.ndim and not len(activations):
        raise InputError("activations: no sample, the first axis has length 0")
    if how == "least_squares":
        return least_squares(activations, weight, bias, selection)
    return {"drop": drop, "add": add, "affine": affine}[how](activations, weight, bias, selection)
