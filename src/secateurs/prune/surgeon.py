"""In which order units can go: block elimination by least loss, what is left refitted each time.

Optimal brain surgeon (Hassibi and Stork, 1993) with whole units as blocks: the loss of a unit is
what the layers that read it cannot rebuild from the units that stay, in the least-squares sense.
With one reader and inputs of equal importance it is the angle to the span of the survivors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateurs.errors import InputError

RIDGE = 1e-3  # of the mean squared input
STEPS = 48  # one in so many of the units that are left goes at a time


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units: its inputs over samples and its weights.

    Either `gram` (inputs, inputs), the mean of x xT over samples, or `rows` (samples, inputs), as
    many or fewer samples than inputs; both about the mean where the layer has an offset to refit.
    `weight` (inputs, outputs), each output times the root of its importance. `columns` (units,
    width) are the inputs that belong to each unit.
    """

    weight: Tensor
    columns: Tensor
    gram: Tensor | None = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Elimination:
    """Units in the order in which they go, and the loss once so many of them are gone.

    `loss[k]` (units,) is the importance-weighted mean squared error of the readers' outputs when
    the first k + 1 of `order` are gone and the rest is refitted; the last unit never goes.
    """

    order: Tensor  # (units,) int64
    loss: Tensor  # (units - 1,) float64

    def survivors(self, keep: int) -> Tensor:
        """The units, ascending, that stay when `keep` do."""
        if not 1 <= keep <= len(self.order):
            raise InputError(f"keep: expected 1..{len(self.order)} units, got {keep}")
        return self.order[len(self.order) - keep :].sort().values

    def loss_of(self, keep: int) -> float:
        """The loss when `keep` units stay."""
        gone = len(self.order) - keep
        return float(self.loss[gone - 1]) if gone else 0.0


def eliminate(
    readers: Sequence[Reader],
    *,
    ridge: float = RIDGE,
    steps: int = STEPS,
) -> Elimination:
    """Take units away until one is left, always those whose loss, refitted, is the least.

    While more than `steps` units are left, one in `steps` goes at a time (jointly eliminated, so
    that their loss is exact for the set). The ridge is relative to the mean squared input of each
    reader. Dead units have no loss and go first, in the order of their index. Raises InputError
    when there is no reader or their units differ.

    >>> x = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 2, 0]])
    >>> reader = Reader(torch.ones(4, 1), torch.arange(4)[:, None], rows=x)
    >>> eliminate([reader]).order.tolist()[:2]
    [3, 0]
    """
    if not readers:
        raise InputError("eliminate: no layer reads the units")
    num_units = len(readers[0].columns)
    if any(len(reader.columns) != num_units for reader in readers):
        raise InputError("eliminate: the readers do not agree on the number of units")
    states = [_state(reader, ridge) for reader in readers]
    active = torch.arange(num_units, device=readers[0].weight.device)
    order: list[Tensor] = []
    losses: list[Tensor] = []
    total = 0.0
    while len(active) > 1:
        count = min(max(1, len(active) // steps), len(active) - 1)
        score = sum(state.scores() for state in states)
        assert isinstance(score, Tensor)
        place = torch.argsort(score, stable=True)[:count]
        order.append(active[place])
        gone = sum(state.eliminate(place) for state in states)
        # The units of one step share its loss evenly.
        share = torch.arange(1, count + 1, dtype=torch.float64) / count
        losses.append(total + float(gone) * share)
        total += float(gone)
        rest = torch.ones(len(active), dtype=torch.bool, device=active.device)
        rest[place] = False
        active = active[rest]
    order.append(active)
    return Elimination(torch.cat(order).cpu(), torch.cat(losses) if losses else torch.empty(0))


class _State(Protocol):
    """What is known of the units that are left."""

    def scores(self) -> Tensor:
        """The loss (units,) if each went alone."""
        ...

    def eliminate(self, place: Tensor) -> float:
        """Take away the units at these places; return what they cost together."""
        ...


def _state(reader: Reader, ridge: float) -> _State:
    if reader.rows is not None:
        return _Dual(reader, reader.rows, ridge)
    assert reader.gram is not None
    return _Primal(reader, reader.gram, ridge)


def _scores(blocks: Tensor, weight: Tensor) -> Tensor:
    """Loss (units,) of each unit from its blocks (units, width, width) of the inverse.

    `weight` is (units, width, outputs).
    """
    if blocks.shape[1] == 1:
        return weight.square().sum((1, 2)) / blocks[:, 0, 0].clamp(min=1e-30)
    factor, _ = torch.linalg.cholesky_ex(blocks)
    solved = torch.linalg.solve_triangular(factor, weight, upper=False)
    return solved.square().sum((1, 2)).nan_to_num(nan=0.0)


class _Primal:
    """The inverse of the ridged Gram matrix, restricted to the group's inputs."""

    def __init__(self, reader: Reader, gram: Tensor, ridge: float) -> None:
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(gram.device)
        scale = ridge * max(float(gram.diagonal().mean()), 1e-30)
        ridged = gram.double()
        ridged.diagonal().add_(scale)
        factor = torch.linalg.cholesky(ridged)
        inverse = torch.cholesky_inverse(factor)
        self.inverse = inverse[columns][:, columns].float()
        self.weight = reader.weight[columns].float()

    def _blocks(self) -> Tensor:
        units = len(self.inverse) // self.width
        view = self.inverse.view(units, self.width, units, self.width)
        return view.diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    def scores(self) -> Tensor:
        """See `_State`."""
        blocks = self._blocks()
        return _scores(blocks, self.weight.view(len(blocks), self.width, -1))

    def eliminate(self, place: Tensor) -> float:
        """See `_State`."""
        gone, rest = _split(len(self.inverse), place, self.width)
        across = self.inverse[:, gone]
        corner = across[gone].double()
        factor = _factor(corner)
        lost = self.weight[gone].double()
        loss = torch.linalg.solve_triangular(factor, lost, upper=False).square().sum()
        across = across[rest]
        self.weight = self.weight[rest].addmm_(
            across, torch.cholesky_solve(lost, factor).float(), alpha=-1
        )
        step = torch.cholesky_solve(across.T.double(), factor).float()
        self.inverse = self.inverse[rest][:, rest].addmm_(across, step, alpha=-1)
        return float(loss)


class _Dual:
    """The same from fewer samples than inputs: x and the inverse of its ridged kernel times x."""

    def __init__(self, reader: Reader, rows: Tensor, ridge: float) -> None:
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(rows.device)
        scaled = rows.double() / len(rows) ** 0.5
        self.ridge = ridge * max(float(scaled.square().sum()) / rows.shape[1], 1e-30)
        kernel = scaled @ scaled.T
        kernel.diagonal().add_(self.ridge)
        solved = torch.cholesky_solve(scaled[:, columns], torch.linalg.cholesky(kernel))
        self.x = scaled[:, columns].float()
        self.solved = solved.float()
        self.weight = reader.weight[columns].float()

    def scores(self) -> Tensor:
        """See `_State`."""
        units = self.x.shape[1] // self.width
        x = self.x.T.reshape(units, self.width, -1)
        solved = self.solved.T.reshape(units, self.width, -1)
        blocks = torch.eye(self.width, device=x.device) - x @ solved.transpose(1, 2)
        return _scores(blocks / self.ridge, self.weight.view(units, self.width, -1))

    def eliminate(self, place: Tensor) -> float:
        """See `_State`."""
        gone, rest = _split(self.x.shape[1], place, self.width)
        x_gone, solved_gone = self.x[:, gone].double(), self.solved[:, gone].double()
        corner = torch.eye(len(gone), dtype=torch.float64, device=gone.device)
        corner -= x_gone.T @ solved_gone
        corner = (corner + corner.T) / 2
        factor = _factor(corner)
        lost = self.weight[gone].double()
        step = torch.cholesky_solve(lost, factor)
        loss = self.ridge * float((lost * step).sum())
        self.x, kept = self.x[:, rest], self.solved[:, rest]
        # x.T @ solved_gone is minus the ridge times the inverse's part between rest and gone.
        self.weight = self.weight[rest].addmm_(self.x.T, (solved_gone @ step).float())
        right = torch.cholesky_solve(solved_gone.T @ self.x.double(), factor)
        self.solved = kept.addmm_(solved_gone.float(), right.float())
        return loss


def _factor(corner: Tensor) -> Tensor:
    """Cholesky factor; what rounding made negative is lifted by a millionth of the largest."""
    factor, wrong = torch.linalg.cholesky_ex(corner)
    if int(wrong):
        corner = corner.clone()
        corner.diagonal().add_(1e-6 * corner.diagonal().abs().max().clamp(min=1e-30))
        factor = torch.linalg.cholesky(corner)
    return factor


def _split(width: int, place: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Columns of the units at these places, and all others, of `width` columns."""
    gone = (place[:, None] * unit + torch.arange(unit, device=place.device)).flatten()
    mask = torch.ones(width, dtype=torch.bool, device=place.device)
    mask[gone] = False
    return gone, mask.nonzero().flatten()
