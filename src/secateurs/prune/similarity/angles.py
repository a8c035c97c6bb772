"""All pairs of units whose activation vectors point the same way, or opposite ways."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.similarity import fused
from secateurs.prune.similarity.normalise import Directions, Normalise, directions, outside_norms
from secateurs.prune.similarity.tiles import (
    Thresholds,
    Vectors,
    full_precision,
    row_block,
    thresholds,
    vectors,
)
from secateurs.prune.similarity.workers import in_order

TILE = 1024  # units, on a CPU: the product of two tiles stays in its cache
ROWS = 512  # of the matrix of all pairs that a histogram holds at a time
DEVICE_TILE = 8192  # enough work for an accelerator between two looks at the result


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of units beyond a threshold, ordered by `i`, then `j`, and the units left out."""

    i: Tensor  # (pairs,) int64
    j: Tensor  # (pairs,) int64, i < j
    angle_deg: Tensor  # (pairs,) float64, 0..180
    dead: Tensor  # (units,) bool: always zero, in no pair
    constant: Tensor  # (units,) bool: always the same value, in no pair
    candidates: Tensor  # (units,) bool: what was looked at, after the norm filter
    norm: Tensor  # (units,) float64, of the normalised vectors

    def __len__(self) -> int:
        return len(self.i)


@dataclass(frozen=True)
class AngleHistogram:
    """Distribution of the angles of a layer's pairs, exact unless it has very many units.

    With fewer `num_units` than `num_live` it is of the pairs of a seeded sample.
    """

    edges: Tensor  # (bins + 1,) float64 degrees, 0..180
    counts: Tensor  # (bins,) int64 pairs
    p01: float | None  # degrees below which 1% of the pairs lie; None without a pair
    p50: float | None
    p99: float | None
    num_units: int  # units looked at
    num_live: int  # units that have a direction
    normalise: Normalise  # what was done with the activations before angles were measured


def similar_pairs(
    activations: Tensor,
    low_deg: float,
    high_deg: float | None = None,
    *,
    normalise: Normalise = "minmax",
    norm_std: float | None = None,
    tile: int | None = None,
    max_pairs: int = 20_000_000,
    screen: torch.dtype | None = None,
    workers: int | None = None,
    devices: Sequence[str | torch.device] | None = None,
) -> SimilarPairs:
    """Every pair of units at an angle below `low_deg` or above `high_deg` degrees, exactly.

    `activations` is (samples, units). Angles are strictly beyond their threshold, decided in
    float64 wherever float32 could err; 0 and 180 (or None) switch a threshold off. Dead and
    constant units are in no pair and are reported apart. `norm_std` keeps only units whose norm is
    outside mean +- that many deviations (the paper's filter). Work is done in tiles of `tile` units
    over half of the matrix, so the memory added is that of the normalised vectors, a few tiles and
    the result. `screen` is the type in which tiles are first computed, bfloat16 or float32 (by
    default the faster here); the result is the same. Blocks of rows are shared out among `workers`
    threads (by default as many as PyTorch uses), or one for each of `devices`, to which the
    activations are copied. Raises InputError on bad options, fewer than two samples, NaN or
    infinity (with the unit), and when there are more than `max_pairs` pairs (saying how many);
    RuntimeError when a worker fails.

    >>> x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.1, 3.0, 0.0]])
    >>> pairs = similar_pairs(x, 15, 165, normalise="none")
    >>> pairs.i.tolist(), pairs.j.tolist(), pairs.dead.tolist()
    ([0], [1], [False, False, False, True])
    """
    limits = thresholds(low_deg, high_deg)
    for name, value in (("tile", tile), ("workers", workers)):
        if value is not None and value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    if screen not in (None, torch.bfloat16, torch.float32):
        raise InputError(f"screen: expected bfloat16 or float32, got {screen}")
    source = directions(activations, normalise=normalise)
    candidates = source.live & outside_norms(source.norm, norm_std)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    num_pairs = 0
    units = candidates.nonzero().flatten()
    places = _places(source, devices, workers)
    for i, j, cosine in scan(source, units, limits, tile=tile, screen=screen, places=places):
        num_pairs += len(i)
        if num_pairs <= max_pairs:
            found.append((i, j, cosine.acos_().rad2deg_()))
        else:
            found.clear()
    if num_pairs > max_pairs:
        raise InputError(
            f"similar_pairs: {num_pairs} pairs are more than max_pairs = {max_pairs}; "
            "narrow the thresholds, filter by norm_std, or select survivors without the list"
        )
    nothing = torch.empty(0, device=source.norm.device)
    i, j, angle = zip(*found, strict=True) if found else ((nothing,),) * 3
    return SimilarPairs(
        i=torch.cat(i).long(),
        j=torch.cat(j).long(),
        angle_deg=torch.cat(angle).double(),
        dead=source.dead,
        constant=source.constant,
        candidates=candidates,
        norm=source.norm,
    )


def scan(
    source: Directions,
    units: Tensor,
    limits: Thresholds,
    *,
    tile: int | None = None,
    screen: torch.dtype | None = None,
    places: Sequence[torch.device] | None = None,
    tops: Sequence[int] | None = None,
) -> Generator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the pairs of `units` beyond the limits as (i, j, float64 cosine), ordered by i, j.

    `units` is sorted; one result holds all the pairs of a block of rows, on the device of `units`.
    There is a thread for each of `places`. `tops` are the first rows of the blocks to look at, by
    default of all of them; they go with a `tile`.
    """
    if not limits.any or len(units) < 2:
        return
    places = places or (units.device,)
    step = tile or (TILE if units.device.type == "cpu" else DEVICE_TILE)
    one_kernel = tile is None and fused.usable(places, len(units))
    with full_precision():
        there = {
            place: vectors(
                source.to(place),
                units.to(place),
                limits,
                screen=screen,
                apart=fused.TILE.block_k if one_kernel else None,
            )
            for place in dict.fromkeys(places)
        }
        # Where bfloat16 leaves too much, the screen is float32, and its tiles are PyTorch's.
        one_kernel = all(prepared.screen.apart is not None for prepared in there.values())
        every = range(0, len(units), fused.ROWS if one_kernel else step)
        blocks = every if tops is None else tops

        def block(prepared: Vectors, top: int) -> tuple[Tensor, Tensor, Tensor] | None:
            if one_kernel:
                return fused.rows(prepared, top, min(top + fused.ROWS, len(units)), step)
            return row_block(prepared, top, min(top + step, len(units)), step)

        for found in in_order(block, [there[place] for place in places], blocks):
            if found is not None:
                i, j, cosine = (part.to(units.device) for part in found)
                yield units[i], units[j], cosine


def _places(
    source: Directions, devices: Sequence[str | torch.device] | None, workers: int | None
) -> list[torch.device]:
    """The device of each worker; raises InputError on both options and on unknown devices."""
    here = source.activations.device
    if devices is None:
        own = torch.get_num_threads() if here.type == "cpu" else 1
        return [here] * (own if workers is None else workers)
    if workers is not None or not devices:
        raise InputError("devices: expected at least one, and no workers, which are for one device")
    places: list[torch.device] = []
    for name in devices:
        try:
            # A tensor knows its index: cuda is cuda:0.
            places.append(torch.empty(0, device=name).device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"devices: {name} cannot be used here ({reason})") from error
    return places


def angle_histogram(
    activations: Tensor,
    *,
    normalise: Normalise = "minmax",
    bins: int = 36,
    max_units: int = 8192,
    seed: int = 0,
) -> AngleHistogram:
    """Histogram over 0..180 degrees and quantiles of the pairwise angles of (samples, units).

    Exact, in float64, over all pairs of live units; where there are more than `max_units` of them
    over all pairs of as many, drawn by `seed` (4 bytes are held for each pair). Raises InputError
    as `similar_pairs` does, and on fewer than one bin or two units to look at.

    >>> histogram = angle_histogram(torch.eye(3), normalise="none", bins=2)
    >>> histogram.counts.tolist(), histogram.p50
    ([0, 3], 90.0)
    """
    if bins < 1 or max_units < 2:
        raise InputError(
            f"angle_histogram: expected bins >= 1 and max_units >= 2, got {bins} and {max_units}"
        )
    source = directions(activations, normalise=normalise)
    live = source.live.nonzero().flatten()
    units = live
    if len(live) > max_units:
        drawn = torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))
        units = live[drawn[:max_units].sort().values.to(live.device)]
    edges = torch.linspace(0, 180, bins + 1, dtype=torch.float64)
    if len(units) < 2:
        counts = torch.zeros(bins, dtype=torch.int64)
        return AngleHistogram(edges, counts, None, None, None, len(units), len(live), normalise)
    exact = source.exact(units)
    counts = torch.zeros(bins, dtype=torch.int64)
    angles = np.empty(len(units) * (len(units) - 1) // 2, dtype=np.float32)
    filled = 0
    for top in range(0, len(units), ROWS):
        rows = exact[top : top + ROWS]
        cosine = (rows @ exact[top:].T).clamp_(-1, 1)
        above = torch.ones_like(cosine, dtype=torch.bool).triu_(1)
        found = cosine[above].acos_().rad2deg_().cpu()
        index = torch.bucketize(found, edges[1:-1], right=True)
        counts += torch.bincount(index, minlength=bins)
        angles[filled : filled + len(found)] = found.numpy()
        filled += len(found)
    assert filled == len(angles), "every pair once"
    places = [round(q * (filled - 1)) for q in (0.01, 0.5, 0.99)]
    angles.partition(sorted(set(places)))
    p01, p50, p99 = (float(angles[place]) for place in places)
    return AngleHistogram(
        edges=edges,
        counts=counts,
        p01=p01,
        p50=p50,
        p99=p99,
        num_units=len(units),
        num_live=len(live),
        normalise=normalise,
    )
