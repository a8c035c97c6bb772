"""Every selection rule behind one call, by its name and with one record of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.limits import check_fields
from secateurs.prune.selection.cluster import cluster
from secateurs.prune.selection.complementary import complementary
from secateurs.prune.selection.pairwise import Selection, filled, make_selection, pairwise
from secateurs.prune.selection.scores import (
    dead_only,
    geometric_median,
    highest,
    random_scores,
    taylor,
    variance,
    weight_norm,
)
from secateurs.prune.selection.subspace import subspace
from secateurs.prune.similarity.normalise import Normalise, directions
from secateurs.prune.similarity.tiles import thresholds

Rule = Literal[
    "pairwise",
    "cluster",
    "subspace",
    "complementary",
    "dead",
    "random",
    "l1",
    "l2",
    "variance",
    "geometric_median",
    "taylor",
]
BY_SCORE = ("random", "l1", "l2", "variance", "geometric_median", "taylor")
BY_NUMBER = ("cluster", *BY_SCORE)  # rules that need the number of units to keep
BISECTIONS = 12  # of 90 degrees: to 0.02 degrees


@dataclass(frozen=True)
class SelectOptions:
    """How units are selected; angles in degrees, 0 and 180 (or None) switch a threshold off.

    `keep` and `keep_fraction` (0..1 of all units, at least one) ask for a number of survivors.
    `pairwise` then looks for the smallest `low_deg` that leaves no more than that; `subspace`
    without either stops at an angle of `low_deg` to the span; `cluster` and the baselines need one
    of them. `cluster` and `subspace` centre where the others map by minimum and maximum.
    """

    rule: Rule = "pairwise"
    low_deg: float = 15.0
    high_deg: float | None = 165.0
    norm_std: float | None = None
    normalise: Normalise = "minmax"
    survivor: Literal["index", "norm"] = "index"
    keep: int | None = None
    keep_fraction: float | None = None
    weighted: bool = True  # cluster, subspace: count a unit's outgoing weights as well
    seed: int = 0  # cluster, random

    def check(self) -> None:
        """Raise InputError on an unknown rule, a bad number to keep, or options at odds."""
        if self.rule not in get_args(Rule):
            raise InputError(
                f"rule: expected one of {', '.join(get_args(Rule))}, got {self.rule!r}"
            )
        if self.keep is not None and self.keep_fraction is not None:
            raise InputError("keep: expected keep or keep_fraction, got both")
        check_fields(self)
        thresholds(self.low_deg, self.high_deg)
        asked = self.keep is not None or self.keep_fraction is not None
        if self.rule in BY_NUMBER and not asked:
            raise InputError(f"keep: rule {self.rule} needs a number of units to keep")
        if self.rule in ("complementary", "dead") and asked:
            raise InputError(f"keep: rule {self.rule} cannot be told how many units to keep")

    @property
    def compared(self) -> Normalise:
        """What is done with activations before the rule compares them by angle.

        >>> SelectOptions(rule="cluster", keep=2).compared, SelectOptions(rule="pairwise").compared
        ('centre', 'minmax')
        """
        centred = self.rule in ("cluster", "subspace") and self.normalise == "minmax"
        return "centre" if centred else self.normalise

    def num_kept(self, num_units: int) -> int | None:
        """Units to keep of that many, None when angles decide."""
        if self.keep_fraction is not None:
            return max(1, round(self.keep_fraction * num_units))
        return self.keep


def select(
    activations: Tensor,
    incoming: Tensor,
    outgoing: Tensor,
    options: SelectOptions,
    *,
    gradients: Tensor | None = None,
) -> Selection:
    """Survivors of a layer by the rule in `options`.

    `activations` is (samples, units) as the next layer receives them, `incoming` the layer's own
    weight (units, inputs), `outgoing` that of the next (outputs, units); `taylor` needs the loss's
    `gradients` (samples, units). Raises InputError on bad options and as the rules do.

    >>> import torch
    >>> x, weight = torch.eye(3), torch.eye(3)
    >>> select(x, weight, weight, SelectOptions(rule="l1", keep=2)).survivors.tolist()
    [0, 1]
    """
    options.check()
    keep = options.num_kept(activations.shape[-1])
    rule, normalise = options.rule, options.normalise
    if rule == "pairwise":
        return _pairwise(activations, options, keep)
    if rule == "cluster":
        assert keep is not None
        return cluster(
            activations,
            keep=keep,
            normalise=options.compared,
            weight=outgoing if options.weighted else None,
            seed=options.seed,
        )
    if rule == "subspace":
        return subspace(
            activations,
            angle_deg=options.low_deg if keep is None else None,
            keep=keep,
            normalise=options.compared,
            weight=outgoing if options.weighted else None,
        )
    if rule == "complementary":
        return complementary(
            activations,
            low_deg=options.low_deg,
            high_deg=180.0 if options.high_deg is None else options.high_deg,
            norm_std=options.norm_std,
            normalise=normalise,
        )
    if rule == "dead":
        return dead_only(activations, normalise=normalise)
    assert keep is not None
    if rule == "random":
        scores = random_scores(activations.shape[1], seed=options.seed).to(activations.device)
    elif rule == "taylor":
        if gradients is None:
            raise InputError("rule taylor needs labels, to take the gradients of the loss")
        scores = taylor(activations, gradients)
    elif rule == "variance":
        scores = variance(activations)
    elif rule == "geometric_median":
        scores = geometric_median(incoming)
    else:
        scores = weight_norm(incoming, p=1 if rule == "l1" else 2)
    return highest(rule, activations, scores, keep=keep, normalise=normalise)


def exactly(
    activations: Tensor, options: SelectOptions, choose: Callable[[], Selection]
) -> Selection:
    """What `choose` selects of (samples, units); of the number asked for no unit is missing.

    Rules leave out dead and constant units, and `subspace` those in the span of others. Here they
    fill up what is missing, so that a layer has the width that was planned; `pairwise` alone stays
    as it is.
    """
    options.check()
    keep = options.num_kept(activations.shape[-1])
    if keep is None or options.rule == "pairwise":
        return choose()
    source = directions(activations, normalise=options.normalise)
    if bool(source.live.any()):
        return filled(choose(), keep)
    first = torch.zeros_like(source.live)
    first[source.constant.int().argmax()] = True
    return filled(make_selection(options.rule, source, first), keep)


def _pairwise(activations: Tensor, options: SelectOptions, keep: int | None) -> Selection:
    """Greedy survivors at the thresholds given, or at the smallest that leaves `keep` or fewer."""

    def at(low_deg: float, high_deg: float | None) -> Selection:
        return pairwise(
            activations,
            low_deg=low_deg,
            high_deg=high_deg,
            norm_std=options.norm_std,
            normalise=options.normalise,
            survivor=options.survivor,
        )

    if keep is None:
        return at(options.low_deg, options.high_deg)

    found: dict[float, Selection] = {}

    def count(low_deg: float) -> int:
        found[low_deg] = at(low_deg, None if options.high_deg is None else 180 - low_deg)
        return len(found[low_deg].survivors)

    return found[smallest_angle(count, keep)]


def smallest_angle(count: Callable[[float], int], keep: int) -> float:
    """The smallest angle in degrees at which `count` gives `keep` survivors or fewer.

    Bisected, as if that number fell with the angle; what is returned has been counted. Raises
    InputError when no angle below 90 degrees will do.

    >>> round(smallest_angle(lambda low_deg: int(90 - low_deg), 30), 2)
    59.02
    """
    best: float | None = None
    least, most = 0.0, 90.0
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        if count(middle) <= keep:
            best = most = middle
        else:
            least = middle
    if best is None:
        raise InputError(
            f"keep: no angle below 90 degrees leaves {keep} units or fewer by rule pairwise"
        )
    return best
