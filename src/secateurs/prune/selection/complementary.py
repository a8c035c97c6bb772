"""Similar units merged, complementary pairs removed, as Gedeon and Harris describe them."""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import Selection, make_selection, pairwise
from secateurs.prune.similarity.angles import scan
from secateurs.prune.similarity.normalise import Normalise, directions, outside_norms
from secateurs.prune.similarity.tiles import Thresholds, thresholds


def complementary(
    activations: Tensor,
    *,
    low_deg: float = 15.0,
    high_deg: float = 165.0,
    norm_std: float | None = None,
    normalise: Normalise = "minmax",
    tile: int = 1024,
) -> Selection:
    """Merge units less than `low_deg` apart; remove both of a pair more than `high_deg` apart.

    `activations` is (samples, units). Similar units go as in `pairwise`. Then the survivors are
    taken by index: the first unpaired later one beyond `high_deg` makes a pair, and both go without
    a parent, with what was merged into them (Gedeon and Harris, 1995): together they are nearly
    constant, which compensation puts into the bias. Raises InputError as `pairwise` does.

    >>> x = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.6], [0.0, 1.0, 1.0]])
    >>> chosen = complementary(x)
    >>> chosen.survivors.tolist(), chosen.parent.tolist()
    ([2], [-1, -1])
    """
    if not high_deg < 180:
        raise InputError(f"high_deg: expected less than 180 for complementary, got {high_deg}")
    limits = thresholds(low_deg, high_deg)
    merged = pairwise(
        activations, low_deg=low_deg, high_deg=None, norm_std=norm_std, normalise=normalise
    )
    source = directions(activations, normalise=normalise)
    opposite = Thresholds(above=None, below=limits.below)
    units = merged.survivors
    if norm_std is not None:
        units = units[outside_norms(source.norm, norm_std)[units]]
    paired: set[int] = set()
    for i, j, _ in scan(source, units, opposite, tile=tile):
        for first, second in zip(i.tolist(), j.tolist(), strict=True):
            if first not in paired and second not in paired:
                paired |= {first, second}
    gone = torch.zeros_like(source.dead)
    gone[torch.tensor(sorted(paired), dtype=torch.int64, device=gone.device)] = True
    parents = torch.full_like(source.dead, -1, dtype=torch.int64)
    parents[merged.removed] = merged.parent
    orphaned = (parents >= 0) & gone[parents.clamp(min=0)]
    parents[orphaned] = -1
    alive = torch.zeros_like(source.dead)
    alive[merged.survivors] = True
    return make_selection("complementary", source, alive & ~gone, parents)
