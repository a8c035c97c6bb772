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
from secateurs.prune.compensation.cholesky import factorise

LEAST_SHRINKAGE = 1e-3
MANY_OUTPUTS = 512
STEPS = 48  # one in so many of the units that are left goes at a time


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units: its inputs over samples and its weights.

    Either `gram` (inputs, inputs), the mean of x xT over samples, or `rows` (samples, inputs), as
    many or fewer samples than inputs; both about the mean where the layer has an offset to refit.
    `weight` (inputs, outputs), each output times the root of its importance. `columns` (units,
    width) are the inputs that belong to each unit. `num_samples` is how many stand behind `gram`.
    """

    weight: Tensor
    columns: Tensor
    num_samples: int
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
    ridge: float | None = None,
    steps: int = STEPS,
) -> Elimination:
    """Take units away until one is left, always those whose loss, refitted, is the least.

    While more than `steps` units are left, one in `steps` goes at a time (jointly eliminated, so
    that their loss is exact for the set). A reader of more than `MANY_OUTPUTS` outputs is seen
    through so many random combinations of them, which keep sums of squares within some 6%. The
    `ridge` is relative to the mean squared input of each reader, by default what
    oracle-approximating shrinkage gives (see `shrinkage`), so that units are not thought to be
    rebuilt because there are few samples, and a unit dead in all of them costs what so few leave
    open. Raises InputError when there is no reader or their units differ.

    >>> x = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 2, 0]])
    >>> reader = Reader(torch.ones(4, 1), torch.arange(4)[:, None], len(x), rows=x)
    >>> eliminate([reader], ridge=1e-3).order.tolist()[:2]
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


def shrinkage(trace: float, squares: float, num_samples: int, num_inputs: int) -> float:
    """How much of a covariance should be replaced by its mean variance, 0..1.

    From the trace of the sample covariance and of its square: oracle-approximating shrinkage (Chen,
    Wiesel, Eldar and Hero, 2010). 1 where nothing is known of the covariance's shape.

    >>> shrinkage(4.0, 4.0, 100, 4)
    1.0
    >>> round(shrinkage(4.0, 10.0, 100, 4), 3)
    0.035
    """
    above = (1 - 2 / num_inputs) * squares + trace**2
    below = (num_samples + 1 - 2 / num_inputs) * (squares - trace**2 / num_inputs)
    return 1.0 if below <= above else max(LEAST_SHRINKAGE, above / below)


def _lift(ridge: float | None, trace: float, squares: float, samples: int, inputs: int) -> float:
    """What is added to the diagonal."""
    if ridge is None:
        part = min(shrinkage(trace, squares, samples, inputs), 0.99)
        ridge = part / (1 - part)
    return max(ridge * trace / inputs, 1e-30)


def _state(reader: Reader, ridge: float | None) -> _State:
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
    factor = factorise(blocks, what="inverse of the Gram matrix")
    solved = torch.linalg.solve_triangular(factor, weight, upper=False)
    return solved.square().sum((1, 2))


class _Primal:
    """The inverse of the ridged Gram matrix, restricted to the group's inputs."""

    def __init__(self, reader: Reader, gram: Tensor, ridge: float | None) -> None:
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(gram.device)
        ridged = gram.to(torch.float64, copy=True)
        trace, squares = float(ridged.trace()), float(ridged.square().sum())
        ridged.diagonal().add_(_lift(ridge, trace, squares, reader.num_samples, len(gram)))
        inverse = torch.cholesky_inverse(factorise(ridged, what="Gram matrix"))
        self.inverse = inverse[columns][:, columns].float()
        self.weight = projected(reader.weight[columns])

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
        factor = factorise(corner, what="inverse of the Gram matrix")
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
    """The same from fewer samples than inputs: x and the inverse of its ridged kernel times x.

    Both are (inputs, samples).
    """

    def __init__(self, reader: Reader, rows: Tensor, ridge: float | None) -> None:
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(rows.device)
        scaled = rows.double() / len(rows) ** 0.5
        kernel = scaled @ scaled.T
        trace, squares = float(kernel.trace()), float(kernel.square().sum())
        self.ridge = _lift(ridge, trace, squares, reader.num_samples, rows.shape[1])
        kernel.diagonal().add_(self.ridge)
        x = scaled.T[columns]
        self.solved = torch.cholesky_solve(x.T, factorise(kernel, what="Gram matrix")).T.float()
        self.x = x.float()
        self.weight = projected(reader.weight[columns])

    def scores(self) -> Tensor:
        """See `_State`."""
        weight = self.weight.view(len(self.weight) // self.width, self.width, -1)
        if self.width == 1:
            blocks = 1 - torch.linalg.vecdot(self.x, self.solved)[:, None, None]
        else:
            x = self.x.view(*weight.shape[:2], -1)
            blocks = torch.eye(self.width, device=x.device) - x @ self.solved.view_as(x).mT
        return _scores(blocks / self.ridge, weight)

    def eliminate(self, place: Tensor) -> float:
        """See `_State`."""
        gone, rest = _split(len(self.x), place, self.width)
        x_gone, solved_gone = self.x[gone].double(), self.solved[gone].double()
        corner = -x_gone @ solved_gone.T
        corner.diagonal().add_(1.0)
        factor = factorise((corner + corner.T) / 2, what="inverse of the Gram matrix")
        lost = self.weight[gone].double()
        step = torch.cholesky_solve(lost, factor)
        loss = self.ridge * float((lost * step).sum())
        self.x, kept = self.x[rest], self.solved[rest]
        # x times solved_gone is minus the ridge times the inverse's part between rest and gone.
        across = self.x @ solved_gone.float().T
        self.weight = self.weight[rest].addmm_(across, step.float())
        right = torch.cholesky_solve(solved_gone, factor).float()
        self.solved = kept.addmm_(across, right)
        return loss


def projected(weight: Tensor) -> Tensor:
    """Rows of outputs, of very many outputs random combinations: sums of squares stay."""
    if weight.shape[1] <= MANY_OUTPUTS:
        return weight.float()
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(weight.shape[1], MANY_OUTPUTS, generator=generator) / MANY_OUTPUTS**0.5
    return weight.float() @ mix.to(weight.device)


def _split(width: int, place: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Columns of the units at these places, and all others, of `width` columns."""
    gone = (place[:, None] * unit + torch.arange(unit, device=place.device)).flatten()
    mask = torch.ones(width, dtype=torch.bool, device=place.device)
    mask[gone] = False
    return gone, mask.nonzero().flatten()
