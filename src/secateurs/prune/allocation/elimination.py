"""In which order units can go: block elimination by least loss, what is left refitted each time.

Optimal brain surgeon (Hassibi and Stork, 1993) with whole units as blocks: the loss of a unit is
what the layers that read it cannot rebuild from the units that stay, in the least-squares sense.
With one reader and inputs of equal importance it is the angle to the span of the survivors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.compensation.cholesky import factorise
from secateurs.prune.statistics.gram import gram_of

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

    def on_cpu(self) -> Reader:
        """The same on the processor."""
        gram = None if self.gram is None else self.gram.cpu()
        rows = None if self.rows is None else self.rows.cpu()
        weight, columns = self.weight.cpu(), self.columns.cpu()
        return replace(self, weight=weight, columns=columns, gram=gram, rows=rows)


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
    if readers[0].weight.device.type != "cpu":
        checks = Checks(deferred=True)
        found = _eliminate(readers, ridge, steps, checks)
        if checks.passed() and bool(found.loss.isfinite().all()):
            return found
    return _eliminate(readers, ridge, steps, Checks())


class Checks:
    """Whether the matrices of an elimination were positive definite, looked at each time or once.

    A graphics card waits for the processor at every look. So all are taken as they are first
    (`deferred`), and where one was not definite all is done again, with a look at each.
    """

    def __init__(self, *, deferred: bool = False) -> None:
        self.deferred = deferred
        self._wrong: list[Tensor] = []

    def factorise(self, matrix: Tensor, *, what: str) -> Tensor:
        """The lower Cholesky factor, see `factorise`."""
        if not self.deferred:
            return factorise(matrix, what=what)
        factor, wrong = torch.linalg.cholesky_ex(matrix)
        self._wrong.append(wrong.ne(0).any())
        return factor

    def passed(self) -> bool:
        """Whether all that was deferred was definite."""
        return not self._wrong or not bool(torch.stack(self._wrong).any())


def _eliminate(
    readers: Sequence[Reader], ridge: float | None, steps: int, checks: Checks
) -> Elimination:
    states = [_state(reader, ridge, checks) for reader in readers]
    device = readers[0].weight.device
    active = torch.arange(len(readers[0].columns), device=device)
    order: list[Tensor] = []
    losses: list[Tensor] = []
    total = torch.zeros((), dtype=torch.float64, device=device)
    while len(active) > 1:
        count = min(max(1, len(active) // steps), len(active) - 1)
        score = sum(state.scores() for state in states)
        assert isinstance(score, Tensor)
        # Places change, units do not: of equal scores the first unit goes.
        ascending = active.argsort()
        place = ascending[torch.argsort(score[ascending], stable=True)[:count]]
        order.append(active[place])
        step = _step(place, len(active))
        gone = sum(state.eliminate(step) for state in states)
        # The units of one step share its loss evenly.
        share = torch.arange(1, count + 1, dtype=torch.float64, device=device) / count
        losses.append(total + gone * share)
        total = total + gone
        active[step.holes] = active[step.fillers]
        active = active[: step.num_left]
    order.append(active)
    loss = torch.cat(losses).cpu() if losses else torch.empty(0)
    return Elimination(torch.cat(order).cpu(), loss)


@dataclass(frozen=True)
class _Step:
    """The places of units that go, and how the others close up.

    The last units that stay, `fillers`, take the places of those that go before them, `holes`, so
    that the first `num_left` places are taken and little is copied.
    """

    gone: Tensor
    holes: Tensor
    fillers: Tensor
    num_left: int

    def of_columns(self, width: int) -> _Step:
        """The same for units of so many columns each."""
        if width == 1:
            return self
        within = torch.arange(width, device=self.gone.device)

        def columns(units: Tensor) -> Tensor:
            return (units[:, None] * width + within).flatten()

        return _Step(
            columns(self.gone), columns(self.holes), columns(self.fillers), self.num_left * width
        )

    def close_up(self, values: Tensor) -> Tensor:
        """The rows (places, ...) that stay, in place."""
        values[self.holes] = values[self.fillers]
        return values[: self.num_left]


def _step(place: Tensor, num_units: int) -> _Step:
    num_left = num_units - len(place)
    stays = torch.ones(num_units, dtype=torch.bool, device=place.device)
    stays.index_fill_(0, place, value=False)
    if place.device.type != "cpu":
        return step_of_fixed_size(place, stays)
    holes = (~stays[:num_left]).nonzero().flatten()
    fillers = stays[num_left:].nonzero().flatten() + num_left
    return _Step(place, holes, fillers, num_left)


def step_of_fixed_size(place: Tensor, stays: Tensor) -> _Step:
    """The same with as many holes as places: further ones are filled with what they hold.

    How many holes there are is then not asked for, for which a graphics card would be waited for.
    """
    count = len(place)
    num_left = len(stays) - count
    gone = ~stays[:num_left]
    most = min(count, num_left)
    holes = torch.argsort(gone.to(torch.uint8), descending=True, stable=True)[:most]
    fillers = torch.argsort(stays[num_left:].to(torch.uint8), descending=True, stable=True)[:most]
    is_hole = torch.arange(most, device=place.device) < gone.sum()
    return _Step(place, holes, torch.where(is_hole, fillers + num_left, holes), num_left)


class _State(Protocol):
    """What is known of the units that are left."""

    def scores(self) -> Tensor:
        """The loss (units,) if each went alone."""
        ...

    def eliminate(self, step: _Step) -> Tensor:
        """Take away the units of a step; return what they cost together."""
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


def lift(ridge: float | None, trace: float, squares: float, samples: int, inputs: int) -> float:
    """What is added to the diagonal."""
    if ridge is None:
        part = min(shrinkage(trace, squares, samples, inputs), 0.99)
        ridge = part / (1 - part)
    return max(ridge * trace / inputs, 1e-30)


def _state(reader: Reader, ridge: float | None, checks: Checks) -> _State:
    if reader.rows is not None:
        return _Dual(reader, reader.rows, ridge, checks)
    assert reader.gram is not None
    return _Primal(reader, reader.gram, ridge, checks)


def _scores(blocks: Tensor, weight: Tensor, checks: Checks) -> Tensor:
    """Loss (units,) of each unit from its blocks (units, width, width) of the inverse.

    `weight` is (units, width, outputs).
    """
    if blocks.shape[1] == 1:
        return _squares(weight) / blocks[:, 0, 0].clamp(min=1e-30)
    factor = checks.factorise(blocks, what="inverse of the Gram matrix")
    one = torch.eye(blocks.shape[1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, one.expand_as(factor), upper=False)
    return _squares(root @ weight)


def _squares(values: Tensor) -> Tensor:
    """The sum of squares (units,) of (units, ...), without a tensor of all squares."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1).square()


class _Primal:
    """The inverse of the ridged Gram matrix, restricted to the group's inputs.

    Units that are left take the first places of one matrix, which is changed in place.
    """

    def __init__(self, reader: Reader, gram: Tensor, ridge: float | None, checks: Checks) -> None:
        self.checks = checks
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(gram.device)
        ridged = gram.to(torch.float64, copy=True)
        trace, squares = float(ridged.trace()), float(torch.linalg.vector_norm(ridged)) ** 2
        ridged.diagonal().add_(lift(ridge, trace, squares, reader.num_samples, len(gram)))
        factor = factorise(ridged, what="Gram matrix")
        del ridged  # of thousands of inputs each matrix takes hundreds of megabytes
        inverse = torch.cholesky_inverse(factor).float()
        del factor
        whole = torch.arange(len(gram), device=gram.device)
        self.inverse = inverse if columns.equal(whole) else inverse[columns][:, columns]
        self.weight = projected(reader.weight[columns])

    def _blocks(self) -> Tensor:
        if self.width == 1:
            return self.inverse.diagonal()[:, None, None]
        units = len(self.inverse) // self.width
        view = self.inverse.unflatten(0, (units, self.width)).unflatten(2, (units, self.width))
        return view.diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    def scores(self) -> Tensor:
        """See `_State`."""
        return _scores(self._blocks(), self.weight.unflatten(0, (-1, self.width)), self.checks)

    def eliminate(self, step: _Step) -> Tensor:
        """See `_State`."""
        step = step.of_columns(self.width)
        across = self.inverse[step.gone]  # rows, which lie side by side: the matrix is symmetric
        corner = across[:, step.gone].double()
        factor = self.checks.factorise(corner, what="inverse of the Gram matrix")
        lost = torch.linalg.solve_triangular(factor, self.weight[step.gone].double(), upper=False)
        across[:, step.holes] = across[:, step.fillers]
        across = torch.linalg.solve_triangular(
            factor, across[:, : step.num_left].double(), upper=False
        ).float()
        self.weight = step.close_up(self.weight).addmm_(across.T, lost.float(), alpha=-1)
        inverse = step.close_up(self.inverse)
        inverse[:, step.holes] = inverse[:, step.fillers]
        self.inverse = inverse[:, : step.num_left].addmm_(across.T, across, alpha=-1)
        return lost.square().sum()


class _Dual:
    """The same from fewer samples than inputs: the ridge times the inverse is 1 less a product.

    Its factors are (inputs, samples), both at first the inverse root of the ridged kernel times x;
    then `solved` changes. The blocks of the inverse are followed along.
    """

    def __init__(self, reader: Reader, rows: Tensor, ridge: float | None, checks: Checks) -> None:
        self.checks = checks
        self.width = reader.columns.shape[1]
        columns = reader.columns.flatten().to(rows.device)
        scaled = rows.double() / len(rows) ** 0.5
        kernel = gram_of(scaled.T)
        trace, squares = float(kernel.trace()), float(kernel.square().sum())
        self.ridge = lift(ridge, trace, squares, reader.num_samples, rows.shape[1])
        kernel.diagonal().add_(self.ridge)
        factor = factorise(kernel, what="Gram matrix")
        root = torch.linalg.solve_triangular(factor, scaled[:, columns], upper=False).T
        self.x = root.float().contiguous()
        self.solved = self.x.clone()
        one = torch.eye(self.width, dtype=torch.float64, device=rows.device)
        of_unit = root.unflatten(0, (-1, self.width))
        self.blocks = one - of_unit @ of_unit.mT
        self.weight = projected(reader.weight[columns])

    def scores(self) -> Tensor:
        """See `_State`."""
        blocks = (self.blocks / self.ridge).float()
        return _scores(blocks, self.weight.unflatten(0, (-1, self.width)), self.checks)

    def eliminate(self, step: _Step) -> Tensor:
        """See `_State`."""
        by_unit, step = step, step.of_columns(self.width)
        x_gone, solved_gone = self.x[step.gone].double(), self.solved[step.gone].double()
        corner = -x_gone @ solved_gone.T
        corner.diagonal().add_(1.0)
        factor = self.checks.factorise((corner + corner.T) / 2, what="inverse of the Gram matrix")
        lost = torch.linalg.solve_triangular(factor, self.weight[step.gone].double(), upper=False)
        solved_gone = torch.linalg.solve_triangular(factor, solved_gone, upper=False)
        # x times solved_gone is minus the ridge times the inverse's part between rest and gone.
        self.x = step.close_up(self.x)
        across = self.x @ solved_gone.float().T
        self.weight = step.close_up(self.weight).addmm_(across, lost.float())
        self.solved = step.close_up(self.solved)
        # across times the solved factor's transpose
        self.solved.addmm_(across, solved_gone.float())
        of_unit = across.unflatten(0, (-1, self.width))
        self.blocks = by_unit.close_up(self.blocks).sub_(of_unit @ of_unit.mT)
        return self.ridge * lost.square().sum()


def projected(weight: Tensor) -> Tensor:
    """Rows of outputs, of very many outputs random combinations: sums of squares stay."""
    if weight.shape[1] <= MANY_OUTPUTS:
        return weight.float()
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(weight.shape[1], MANY_OUTPUTS, generator=generator) / MANY_OUTPUTS**0.5
    return weight.float() @ mix.to(weight.device)
