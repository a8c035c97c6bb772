"""Selection by groups: spherical k-means on activation vectors, one survivor a group."""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.normalise import Directions, Normalise, contribution, directions
from secateurs.prune.selection import Selection, make_selection

ROUNDS = 30


def cluster(
    activations: Tensor,
    *,
    keep: int,
    normalise: Normalise = "centre",
    weight: Tensor | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Selection:
    """Group the units of (samples, units) by angle into `keep` groups, one survivor a group.

    Spherical k-means (Dhillon and Modha, 2001): each unit belongs to the group whose mean direction
    is at the smallest angle, until no unit moves or `rounds` are done; the first directions are
    drawn by k-means++ (Arthur and Vassilvitskii, 2007) with `seed`. A unit counts as much as the
    square of its norm, times that of its column in the outgoing `weight` (outputs, units) when one
    is given: what it contributes to the next layer. The survivor is the member nearest to the
    group's direction, and every other member's parent. Dead and constant units go first, so that
    fewer than `keep` survive when there are not enough others. Raises InputError as
    `similar_pairs` does, on fewer than one group or round, and on a weight of another size.

    >>> x = torch.tensor([[1.0, 2.0, 0.0, 0.1], [0.0, 0.1, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    >>> chosen = cluster(x, keep=2, normalise="none")
    >>> chosen.survivors.tolist(), chosen.removed.tolist(), chosen.parent.tolist()
    ([1, 2], [0, 3], [1, 2])
    """
    if keep < 1:
        raise InputError(f"keep: expected at least 1 unit, got {keep}")
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1, got {rounds}")
    source = directions(activations, normalise=normalise)
    size = contribution(source, weight)
    units = (source.live & (source.norm > 0)).nonzero().flatten()
    alive, parents = source.live.clone(), torch.full_like(source.dead, -1, dtype=torch.int64)
    if len(units) <= keep:
        return make_selection("cluster", source, alive, parents)
    vectors = _unit_vectors(source, units)  # (live, samples) float32
    share = (size[units] / size[units].amax()).square().float()
    label, cosine = _k_means(vectors, share, keep, seed, rounds)
    # The member nearest to its group's direction; ties go to the lower index.
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(label[order], stable=True)]
    first = torch.ones_like(label, dtype=torch.bool)
    first[1:] = label[order][1:] != label[order][:-1]
    medoid = torch.zeros(keep, dtype=torch.int64, device=units.device)
    medoid[label[order[first]]] = units[order[first]]
    alive[units] = False
    alive[medoid[label.unique()]] = True
    parents[units] = medoid[label]
    return make_selection("cluster", source, alive, parents)


def _unit_vectors(source: Directions, units: Tensor) -> Tensor:
    vectors = torch.empty(len(units), source.num_samples, device=units.device)
    for part, exact in source.pieces(units):
        vectors[part] = exact
    return vectors


def _k_means(
    vectors: Tensor, share: Tensor, num_groups: int, seed: int, rounds: int
) -> tuple[Tensor, Tensor]:
    """Group of each row (rows,) int64 and its cosine to the group's direction (rows,)."""
    centres = _first_centres(vectors, share, num_groups, seed)
    label = torch.full((len(vectors),), -1, dtype=torch.int64, device=vectors.device)
    cosine = vectors.new_zeros(len(vectors))
    weighted = vectors * share[:, None]
    for _ in range(rounds):
        cosine, new = (vectors @ centres.T).max(1)
        if torch.equal(new, label):
            break
        label = new
        total = torch.zeros_like(centres).index_add_(0, label, weighted)
        length = torch.linalg.vector_norm(total, dim=1, keepdim=True)
        # A group that lost its members, or whose members cancel out, stays where it was.
        centres = torch.where(length > 0, total / length.clamp(min=1e-30), centres)
    return label, cosine


def _first_centres(vectors: Tensor, share: Tensor, num_groups: int, seed: int) -> Tensor:
    """Rows drawn one after the other, by their share times their distance to those drawn."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(num_groups, generator=generator, dtype=torch.float64).tolist()
    distance = torch.ones_like(share)
    chosen: list[int] = []
    for draw in draws:
        ladder = (share * distance).double().cumsum(0)
        row = int(torch.searchsorted(ladder, draw * float(ladder[-1]), right=True))
        chosen.append(min(row, len(share) - 1))
        distance = torch.minimum(distance, (1 - vectors @ vectors[chosen[-1]]).clamp_(min=0))
        distance[chosen[-1]] = 0.0
    return vectors[chosen].clone()
