"""Baselines: a score a unit, and the units with the highest scores survive."""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import Selection, make_selection
from secateurs.prune.similarity.normalise import Normalise, directions


def highest(
    rule: str,
    activations: Tensor,
    scores: Tensor,
    *,
    keep: int,
    normalise: Normalise = "minmax",
) -> Selection:
    """Keep the `keep` live units of (samples, units) with the highest `scores` (units,).

    Ties go to the lower index; dead and constant units go first, so that fewer are kept when there
    are not enough others. A removed unit's parent is the survivor at the smallest angle. Raises
    InputError as `similar_pairs` does, on fewer than one unit to keep, and on scores of another
    size or not finite.

    >>> x = torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
    >>> highest("variance", x, torch.tensor([1.0, 3.0, 2.0]), keep=1).survivors.tolist()
    [1]
    """
    source = directions(activations, normalise=normalise)
    if keep < 1:
        raise InputError(f"keep: expected at least 1 unit, got {keep}")
    if scores.shape != source.dead.shape:
        raise InputError(f"scores: expected shape ({source.num_units},), got {tuple(scores.shape)}")
    if not bool(torch.isfinite(scores).all()):
        unit = int((~torch.isfinite(scores)).nonzero()[0])
        raise InputError(f"scores: unit {unit} has {float(scores[unit])}")
    units = source.live.nonzero().flatten()
    order = torch.argsort(scores[units], descending=True, stable=True)
    alive = torch.zeros_like(source.dead)
    alive[units[order[:keep]]] = True
    return make_selection(rule, source, alive)


def dead_only(activations: Tensor, *, normalise: Normalise = "minmax") -> Selection:
    """Remove nothing but the dead and constant units of (samples, units).

    >>> dead_only(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).survivors.tolist()
    [0]
    """
    source = directions(activations, normalise=normalise)
    return make_selection("dead", source, source.live)


def random_scores(num_units: int, *, seed: int) -> Tensor:
    """A random order of the units, the same for the same seed, (units,) float64.

    >>> random_scores(4, seed=0).sort().values.tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    return torch.randperm(num_units, generator=torch.Generator().manual_seed(seed)).double()


def weight_norm(weight: Tensor, *, p: float) -> Tensor:
    """Length of each unit's incoming weights (units, inputs) in the L-`p` norm, (units,) float64.

    L1 as in Li et al., 2017; L2 as in He et al., 2018.

    >>> weight_norm(torch.tensor([[3.0, -4.0], [0.0, 1.0]]), p=1).tolist()
    [7.0, 1.0]
    """
    return torch.linalg.vector_norm(weight.detach(), ord=p, dim=1, dtype=torch.float64)


def variance(activations: Tensor) -> Tensor:
    """Variance of each unit of (samples, units), (units,) float64.

    >>> variance(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return activations.detach().double().var(0, correction=0)


def geometric_median(weight: Tensor) -> Tensor:
    """Summed distance of each unit's incoming weights (units, inputs) to all others', (units,).

    The least is nearest to the geometric median and the most replaceable (He et al., 2019, FPGM).

    >>> geometric_median(torch.tensor([[0.0], [1.0], [5.0]])).tolist()
    [6.0, 5.0, 9.0]
    """
    rows = weight.detach()
    parts = [torch.cdist(part, rows).sum(1, dtype=torch.float64) for part in rows.split(512)]
    return torch.cat(parts)


def taylor(activations: Tensor, gradients: Tensor) -> Tensor:
    """Mean absolute first-order change of the loss when a unit is zeroed, (units,) float64.

    `activations` and the loss's `gradients` with respect to them are (samples, units) (Molchanov
    et al., 2017, equation 8). Raises InputError when their shapes differ.

    >>> taylor(torch.tensor([[1.0, 2.0]]), torch.tensor([[-3.0, 0.5]])).tolist()
    [3.0, 1.0]
    """
    if activations.shape != gradients.shape:
        raise InputError(
            f"gradients: expected shape {tuple(activations.shape)}, got {tuple(gradients.shape)}"
        )
    return (activations.detach().double() * gradients.detach().double()).abs().mean(0)
