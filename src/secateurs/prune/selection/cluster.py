"""Selection by groups: spherical k-means on activation vectors, one survivor a group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import Selection, make_selection
from secateurs.prune.similarity.normalise import Directions, Normalise, contribution, directions

ROUNDS = 30
HELD_BYTES = 512 * 2**20  # cosines of all pairs are held up to this size: 11,585 units
UNITS_A_GROUP = 16  # with more, looking at vectors again and again is cheaper than at all pairs


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
    group's direction, and every other member's parent. In the place of a group that stays empty, as
    with few samples or equal units, a member of another survives, the one that contributes most and
    is farthest from its group. Dead and constant units go first, so that fewer than `keep` survive
    when there are not enough others. Raises InputError as `similar_pairs` does, on fewer than one
    group or round, and on a weight of another size.

    >>> x = torch.tensor([[1.0, 2.0, 0.0, 0.1], [0.0, 0.1, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    >>> chosen = cluster(x, keep=2, normalise="none")
    >>> chosen.survivors.tolist(), chosen.removed.tolist(), chosen.parent.tolist()
    ([1, 2], [0, 3], [1, 2])
    """
    members = prepare(activations, normalise=normalise, weight=weight, num_groups=keep)
    return cluster_members(members, keep=keep, seed=seed, rounds=rounds)


@dataclass(frozen=True)
class Members:
    """What may be grouped: directions of a layer's units and what each counts, looked at once.

    `cosine` holds all pairs, where so many groups will be asked for that it pays and they fit.
    """

    source: Directions
    units: Tensor  # (members,) int64, units that have a direction
    vectors: Tensor  # (members, samples) float32, of length 1
    share: Tensor  # (members,) float32, squared contributions, the largest 1
    cosine: Tensor | None  # (members, members) float32


def prepare(
    activations: Tensor,
    *,
    normalise: Normalise = "centre",
    weight: Tensor | None = None,
    num_groups: int,
) -> Members:
    """Look at (samples, units) once, for `cluster_members` to be called any number of times.

    `num_groups` is how many groups will be asked for, over all calls; more make it pay to look at
    all pairs first. Raises InputError as `cluster` does.
    """
    source = directions(activations, normalise=normalise)
    size = contribution(source, weight)
    units = (source.live & (source.norm > 0)).nonzero().flatten()
    vectors = _unit_vectors(source, units)
    share = (size[units] / size[units].amax()).square().float() if len(units) else size[units]
    pays = num_groups * UNITS_A_GROUP > len(units) and 4 * len(units) ** 2 <= HELD_BYTES
    return Members(source, units, vectors, share, vectors @ vectors.T if pays else None)


def cluster_members(
    members: Members, *, keep: int, seed: int = 0, rounds: int = ROUNDS
) -> Selection:
    """What `cluster` gives, of units that were looked at before. Raises InputError as it does."""
    if keep < 1:
        raise InputError(f"keep: expected at least 1 unit, got {keep}")
    if rounds < 1:
        raise InputError(f"rounds: expected at least 1, got {rounds}")
    source, units = members.source, members.units
    alive, parents = source.live.clone(), torch.full_like(source.dead, -1, dtype=torch.int64)
    if len(units) <= keep:
        return make_selection("cluster", source, alive, parents)
    label, cosine = _k_means(members, keep, seed, rounds)
    # The member nearest to its group's direction; ties go to the lower index.
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(label[order], stable=True)]
    first = torch.ones_like(label, dtype=torch.bool)
    first[1:] = label[order][1:] != label[order][:-1]
    medoid = torch.zeros(keep, dtype=torch.int64, device=units.device)
    medoid[label[order[first]]] = units[order[first]]
    parents[units] = medoid[label]
    # Members that are no survivors, the most to lose first; equal ones by what they contribute.
    rest = order[~first]
    rest = rest[torch.argsort(members.share[rest], descending=True, stable=True)]
    lost = members.share[rest] * (1 - cosine[rest]).clamp(min=0)
    rest = rest[torch.argsort(lost, descending=True, stable=True)]
    alive[units] = False
    alive[units[order[first]]] = True
    alive[units[rest[: keep - int(first.sum())]]] = True
    return make_selection("cluster", source, alive, parents)


def _unit_vectors(source: Directions, units: Tensor) -> Tensor:
    vectors = torch.empty(len(units), source.num_samples, device=units.device)
    for part, exact in source.pieces(units):
        vectors[part] = exact
    return vectors


def _k_means(members: Members, num_groups: int, seed: int, rounds: int) -> tuple[Tensor, Tensor]:
    """Group of each member (members,) int64 and its cosine to the group's direction (members,)."""
    first = _first_members(members, num_groups, seed)
    num, samples = members.vectors.shape
    # A round by vectors is a matrix product, by pairs a pass over memory: equal here, as measured.
    if members.cosine is None or samples * num_groups < 8 * num:
        return _by_vectors(members.vectors, members.share, first, rounds)
    return _by_pairs(members.cosine, members.share, first, rounds)


def _by_vectors(
    vectors: Tensor, share: Tensor, first: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Lloyd's rounds from the members `first` on, each group's direction a vector."""
    centres = vectors[first]
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


def _by_pairs(pairs: Tensor, share: Tensor, first: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """The same from the cosines of all pairs alone, (members, members).

    The inner product of a member with a group's sum is the sum of its cosines to the group's
    members; only groups that gained or lost a member are summed again.
    """
    num_groups, num = len(first), len(pairs)
    closeness = pairs[first]  # (groups, members), cosine to each group's direction
    label = torch.full((num,), -1, dtype=torch.int64, device=pairs.device)
    cosine = pairs.new_zeros(num)
    for _ in range(rounds):
        cosine, new = closeness.T.contiguous().max(1)
        moved = new != label
        if not bool(moved.any()):
            break
        changed = torch.zeros(num_groups + 1, dtype=torch.bool, device=pairs.device)
        changed[new[moved]] = changed[label[moved]] = True  # -1, no group yet, is the last
        label = new
        changed = changed[:-1].nonzero().flatten()
        place = torch.full((num_groups,), -1, dtype=torch.int64, device=pairs.device)
        place[changed] = torch.arange(len(changed), device=pairs.device)
        inside = (place[label] >= 0).nonzero().flatten()
        inside = inside[torch.argsort(label[inside], stable=True)]
        row = place[label[inside]]
        add = weighted_sums if pairs.device.type == "cpu" else weighted_sums_dense
        total = add(pairs, row, inside, share[inside], len(changed))
        square = pairs.new_zeros(len(changed))
        square.index_add_(0, row, share[inside] * total[row, inside])
        length = square.clamp(min=0).sqrt()[:, None]
        # As above: a group without a direction stays where it was.
        closeness[changed] = torch.where(
            length > 0, total / length.clamp(min=1e-30), closeness[changed]
        )
    return label, cosine


def weighted_sums(
    pairs: Tensor, row: Tensor, inside: Tensor, share: Tensor, num_rows: int
) -> Tensor:
    """Sums (num_rows, members) of the rows `inside` of `pairs`, each times its share.

    `row` says to which sum each belongs; members are ordered by it, then by index.
    """
    # The product makes sparse tensors of its own, for which PyTorch wants the choice made as well.
    with torch.sparse.check_sparse_tensor_invariants(False):
        weights = torch.sparse_coo_tensor(
            torch.stack([row, inside]), share, (num_rows, len(pairs)), is_coalesced=True
        )
        return weights @ pairs


def weighted_sums_dense(
    pairs: Tensor, row: Tensor, inside: Tensor, share: Tensor, num_rows: int
) -> Tensor:
    """The same by a dense product: faster on a graphics card, and always added in one order."""
    weights = pairs.new_zeros(num_rows, len(pairs))
    weights[row, inside] = share
    return weights @ pairs


def _first_members(members: Members, num_groups: int, seed: int) -> Tensor:
    """Members drawn one after the other, by their share times their distance to those drawn."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(num_groups, generator=generator, dtype=torch.float64)
    vectors, share = members.vectors, members.share
    draws = draws.to(share.device)
    distance = torch.ones_like(share)
    chosen: list[Tensor] = []
    # Nothing is read back in this loop: a graphics card would wait for it once for each group.
    for draw in draws.split(1):
        ladder = (share * distance).double().cumsum(0)
        row = torch.searchsorted(ladder, draw * ladder[-1], right=True)
        row.clamp_(max=len(share) - 1)
        chosen.append(row)
        if members.cosine is None:
            near = vectors @ vectors.index_select(0, row)[0]
        else:
            near = members.cosine.index_select(0, row)[0]
        distance = torch.minimum(distance, (1 - near).clamp_(min=0)).index_fill_(0, row, 0.0)
    return torch.cat(chosen)
