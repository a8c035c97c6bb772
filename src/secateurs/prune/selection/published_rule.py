"""The rule of the founding paper's published program, with its quirks, for comparing counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.similarity.angles import scan
from secateurs.prune.similarity.normalise import directions, outside_norms
from secateurs.prune.similarity.tiles import thresholds

Pairs = Iterable[tuple[int, NDArray[np.int64]]]  # each i with the j > i that it is paired with


@dataclass(frozen=True)
class Published:
    """Result of the published rule: the layer keeps its size, rows of its weight are zeroed."""

    weight: Tensor  # (units, inputs): the layer's incoming weights after the rule
    removed: Tensor  # (units,) bool: units that were the second of a pair
    num_pairs: int

    @property
    def num_removed(self) -> int:
        """The count that the paper reports: distinct second units of the pairs."""
        return int(self.removed.sum())


def published(
    activations: Tensor, weight: Tensor, *, low_deg: float, norm_std: float, tile: int = 1024
) -> Published:
    """Apply the published program's rule to the incoming weights (units, inputs) of a layer.

    `activations` is (samples, units) after the non-linearity. One minimum and maximum map them to
    [-0.5, 0.5]; units whose norm is outside mean +- `norm_std` deviations are candidates; pairs
    i < j of candidates at less than `low_deg` or more than 180 - `low_deg` degrees are taken in
    row order, an undefined angle counting as 1000 degrees. For each, row i of the weights
    += row j, and row j becomes zero; biases stay, and a zeroed row can receive weights again. Dead
    units take part. The weight given is not changed. Raises InputError as `similar_pairs` does,
    unless 0 < low_deg < 90, and when the weight does not have one row a unit.

    >>> x = torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    >>> published(x, torch.eye(3), low_deg=10, norm_std=0).num_removed
    0
    """
    if not 0 < low_deg < 90:
        raise InputError(f"low_deg: expected an angle within 0..90 degrees, got {low_deg}")
    source = directions(activations, normalise="minmax")
    if weight.ndim != 2 or len(weight) != source.num_units:
        raise InputError(
            f"weight: expected ({source.num_units}, inputs), got {tuple(weight.shape)}"
        )
    candidates = outside_norms(source.norm, norm_std)
    if bool((source.activations == source.activations[0, 0]).all()):
        # The program divides zero by zero here: NaN norms are outside nothing.
        candidates = torch.zeros_like(candidates)
    undefined = (candidates & (source.norm == 0)).nonzero().flatten()
    defined = (candidates & (source.norm > 0)).nonzero().flatten()
    listed = scan(source, defined, thresholds(low_deg, 180 - low_deg), tile=tile)
    parts = [(i, j) for i, j, _ in listed]
    if len(undefined):
        parts.append(_with_undefined(undefined, defined))
    if not parts:
        return Published(weight.detach().clone(), torch.zeros_like(candidates), 0)
    first, second = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    if len(undefined):
        order = torch.argsort(first * source.num_units + second)
        first, second = first[order], second[order]
    starts, counts = torch.unique_consecutive(first, return_counts=True)
    later = (js.numpy() for js in second.split(counts.tolist()))
    rows = weight.detach().cpu().double().numpy()
    sums, removed, _ = add_rows(rows, zip(starts.tolist(), later, strict=True))
    return Published(
        torch.from_numpy(sums).to(weight),
        torch.from_numpy(removed).to(candidates.device),
        len(first),
    )


def add_rows(
    sums: NDArray[np.float64], pairs: Pairs
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Do to `sums` (units, n) what the published program does to the rows of a layer's weights.

    For each pair (i, j) row i += row j and row j = 0. Since a layer's outputs less its bias are
    linear in its weights, the rows may be those outputs. Returns new sums, the units that were the
    second of a pair, and those whose row is another now.

    >>> rows = np.array([[1.0], [2.0], [4.0]])
    >>> sums, removed, _ = add_rows(rows, [(0, np.array([1])), (1, np.array([2]))])
    >>> sums[:, 0].tolist(), removed.tolist()
    ([3.0, 4.0, 0.0], [False, True, True])
    """
    sums = sums.copy()
    removed = np.zeros(len(sums), dtype=np.bool_)
    changed = np.zeros(len(sums), dtype=np.bool_)
    filled = np.ones(len(sums), dtype=np.bool_)
    # The pairs of one i do not touch each other: they are taken together, zero rows left out.
    for i, js in pairs:
        removed[js] = True
        full = js[filled[js]]
        if len(full) == 0:
            continue
        sums[i] += sums[full].sum(0)
        sums[full] = 0
        filled[full] = False
        filled[i] = True
        changed[i] = True
        changed[full] = True
    return sums, removed, changed


def _with_undefined(undefined: Tensor, defined: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs i < j in which one of the units has no direction."""
    others = torch.cat([undefined, defined])
    i, j = undefined.repeat_interleave(len(others)), others.repeat(len(undefined))
    both = torch.isin(j, undefined)
    keep = (i != j) & (~both | (i < j))
    i, j = i[keep], j[keep]
    return torch.minimum(i, j), torch.maximum(i, j)
