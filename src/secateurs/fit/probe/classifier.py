"""A ridge classifier on fixed features, its ridge chosen by leave-one-group-out errors."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.errors import InputError
from secateurs.threads import one_thread

RIDGES = tuple(10 ** (k / 2) for k in range(-8, 9))  # relative to the mean squared singular value
SMALL = 2048  # rows of a decomposition that one thread does
ROWS = 8192  # rows in float64 at a time
CONSTANT = 1e-6  # a feature with a smaller standard deviation, relative to its mean, is left out


@dataclass(frozen=True)
class RidgeClassifier:
    """What `fit_classifier` found.

    `weight` (classes, features) and `bias` (classes,), float64, act on the features as they were
    given, not on standardised ones. `ridge` is the one of `RIDGES` that was chosen. `left_out`
    (views, images, classes), float64, are the scores of each image by the classifier that was
    fitted without its group. `errors` are the mean squared leave-one-group-out errors, one a ridge.
    """

    weight: Tensor
    bias: Tensor
    ridge: float
    left_out: Tensor
    errors: tuple[float, ...]

    def scores(self, features: Tensor) -> Tensor:
        """Class scores (images, classes), float64, of features (images, features)."""
        return features.double() @ self.weight.T + self.bias


def fit_classifier(
    features: Tensor,
    labels: NDArray[np.int64],
    num_classes: int,
    groups: Sequence[str] | None = None,
    *,
    balanced: bool = False,
    ridges: Sequence[float] = RIDGES,
) -> RidgeClassifier:
    """Ridge regression of one-hot classes on standardised features, with an intercept, in float64.

    `features` (views, images, features) are those of each image in one or several views, `labels`
    (images,) class indices. All views of all images of a group are left out together; without
    `groups`, or with one group only, all views of one image. The ridge parameter has the least
    squared error of what is left out, from one eigendecomposition for all ridges and groups (the
    hat matrix has a block for each group), so that nothing is fitted twice. With `balanced` every
    class has the same total weight. The means and standard deviations are those of all images:
    they know no label. Raises InputError for shapes that do not agree.

    >>> x = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
    >>> found = fit_classifier(x, np.array([0, 0, 1, 1]), 2)
    >>> found.left_out[0].argmax(1).tolist()
    [0, 0, 1, 1]
    """
    views, num, _ = _shape(features, labels, groups, ridges)
    part = _Parts(features, labels, num_classes, groups, balanced=balanced)
    small = min(views * num, features.shape[2]) <= SMALL
    with one_thread() if small else nullcontext():
        values, vectors = part.eigen()
    errors = torch.zeros(len(ridges), dtype=torch.float64)
    scale = float(values.sum()) / max(1, len(values))
    shrinks = [_shrink(values, ridge * scale) for ridge in ridges]
    with one_thread():
        for rows in part.pieces():
            block = part.block(rows, values, vectors)
            for k, shrink in enumerate(shrinks):
                errors[k] += part.left_out(block, shrink).square().sum()
        best = int(errors.argmin())
        scores = torch.empty(views * num, num_classes, dtype=torch.float64)
        for rows in part.pieces():
            block = part.block(rows, values, vectors)
            rest = part.left_out(block, shrinks[best]) / part.root[rows, None]
            scores[rows] = part.targets[rows] - rest
    weight, bias = part.coefficients(values, vectors, ridges[best] * scale)
    return RidgeClassifier(
        weight,
        bias,
        ridges[best],
        scores.view(views, num, num_classes),
        tuple((errors / (views * num)).tolist()),
    )


def _shape(
    features: Tensor,
    labels: NDArray[np.int64],
    groups: Sequence[str] | None,
    ridges: Sequence[float],
) -> tuple[int, int, int]:
    if features.ndim != 3 or features.shape[1] != len(labels) or len(labels) == 0:
        raise InputError(
            f"features must be (views, {len(labels)} images, features), got {tuple(features.shape)}"
        )
    if groups is not None and len(groups) != len(labels):
        raise InputError(f"{len(groups)} groups for {len(labels)} images")
    if not ridges or min(ridges) <= 0:
        raise InputError(f"ridges: expected positive numbers, got {list(ridges)}")
    views, num, width = features.shape
    return views, num, width


def _shrink(values: Tensor, ridge: float) -> Tensor:
    # The intercept, the first column of a block, is not penalised.
    return torch.cat([values.new_ones(1), values / (values + ridge)])


@dataclass(frozen=True)
class _Block:
    """Rows of the left singular vectors, intercept first, and targets, both times root weights."""

    u: Tensor  # (rows, 1 + rank)
    y: Tensor  # (rows, classes), centred
    sizes: Tensor  # (groups,) rows of each group, which lie together


class _Parts:
    """The weighted, standardised problem, a few rows at a time."""

    def __init__(
        self,
        features: Tensor,
        labels: NDArray[np.int64],
        num_classes: int,
        groups: Sequence[str] | None,
        *,
        balanced: bool,
    ) -> None:
        views, num, width = features.shape
        self.flat = features.reshape(views * num, width)
        label = torch.from_numpy(np.asarray(labels)).repeat(views)
        self.targets = torch.nn.functional.one_hot(label, num_classes).double()
        counts = torch.bincount(label, minlength=num_classes).double()
        weight = torch.ones(len(label), dtype=torch.float64)
        if balanced:
            weight = len(label) / (counts > 0).sum() / counts[label]
        self.root, self.total = weight.sqrt(), weight.sum()
        self.group, self.order, self.sizes = _by_group(groups, views, num)
        self.mean, self.std = self._moments()
        self.y_mean = (weight[:, None] * self.targets).sum(0) / self.total
        self.projected = torch.zeros(0)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation of each feature; infinite where it is constant."""
        weight = self.root.square()[:, None]
        mean = sum((weight[r] * self.flat[r].double()).sum(0) for r in self._rows()) / self.total
        assert isinstance(mean, Tensor)
        square = sum(
            (weight[r] * (self.flat[r].double() - mean).square()).sum(0) for r in self._rows()
        )
        assert isinstance(square, Tensor)
        std = (square / self.total).sqrt()
        constant = std <= CONSTANT * mean.abs().clamp(min=1e-30)
        return mean, std.masked_fill(constant, torch.inf)

    def _rows(self) -> list[slice]:
        return [slice(at, at + ROWS) for at in range(0, len(self.flat), ROWS)]

    def rows_of(self, rows: slice | Tensor) -> Tensor:
        """Standardised features of some rows, times the roots of their weights."""
        return (self.flat[rows].double() - self.mean) / self.std * self.root[rows, None]

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Squared singular values (rank,), and the vectors that make left ones of rows.

        Those are the left singular vectors themselves (rows, rank) when there are fewer rows than
        features, else right ones over singular values (features, rank).
        """
        rows, width = self.flat.shape
        targets = (self.targets - self.y_mean) * self.root[:, None]
        self.primal = rows >= width
        if self.primal:
            gram = torch.zeros(width, width, dtype=torch.float64)
            cross = torch.zeros(width, targets.shape[1], dtype=torch.float64)
            for piece in self._rows():
                x = self.rows_of(piece)
                gram += x.T @ x
                cross += x.T @ targets[piece]
        else:
            x = self.rows_of(slice(None))
            gram, cross = x @ x.T, targets
        values, vectors = torch.linalg.eigh(gram)
        keep = values > values.amax().clamp(min=0) * len(values) * 1e-14
        values, vectors = values[keep], vectors[:, keep]
        if self.primal:
            vectors = vectors / values.sqrt()
        # u'y for each left singular vector; the intercept has none, as y is centred.
        self.projected = torch.cat([cross.new_zeros(1, cross.shape[1]), vectors.T @ cross])
        return values, vectors

    def coefficients(self, values: Tensor, vectors: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (classes, features) and bias (classes,) on features as they were given."""
        part = self.projected[1:] * (values.sqrt() / (values + ridge))[:, None]  # (rank, classes)
        if self.primal:
            w = (vectors * values.sqrt()) @ part
        else:
            w = self.rows_of(slice(None)).T @ (vectors @ (part / values.sqrt()[:, None]))
        weight = (w / self.std[:, None]).T
        return weight.contiguous(), self.y_mean - weight @ self.mean

    def pieces(self) -> Generator[Tensor]:
        """Rows of whole groups, at most some `ROWS` at a time."""
        first, size = 0, 0
        for end in torch.cumsum(self.sizes, 0).tolist():
            if size and end - first > ROWS:
                yield self.order[first : first + size]
                first, size = first + size, 0
            size = end - first
        yield self.order[first : first + size]

    def block(self, rows: Tensor, values: Tensor, vectors: Tensor) -> _Block:
        """What is needed of some rows, which are whole groups."""
        left = self.rows_of(rows) @ vectors if self.primal else vectors[rows]
        u = torch.cat([(self.root[rows] / self.total.sqrt())[:, None], left], 1)
        y = (self.targets[rows] - self.y_mean) * self.root[rows, None]
        _, sizes = torch.unique_consecutive(self.group[rows], return_counts=True)
        return _Block(u, y, sizes)

    def left_out(self, block: _Block, shrink: Tensor) -> Tensor:
        """Residuals (rows, classes) of rows whose group is left out: (1 - H)^-1 r by group."""
        rest = block.y - block.u @ (shrink[:, None] * self.projected)
        result = torch.empty_like(rest)
        starts = torch.cumsum(block.sizes, 0) - block.sizes
        for size in block.sizes.unique().tolist():
            first = starts[block.sizes == size]
            rows = (first[:, None] + torch.arange(size)).flatten()
            u = block.u[rows].view(len(first), size, -1)
            r = rest[rows].view(len(first), size, -1)
            result[rows] = _without(u, r, shrink).reshape(len(rows), -1)
        return result


def _without(u: Tensor, r: Tensor, shrink: Tensor) -> Tensor:
    """(1 - u S u')^-1 r of each group; u (groups, rows, rank), r (groups, rows, classes)."""
    size, rank = u.shape[1:]
    if size <= rank:
        eye = torch.eye(size, dtype=u.dtype)
        return torch.linalg.solve(eye - (u * shrink) @ u.mT, r)
    # The same by Woodbury's identity: a group of many images costs the rank's cube only.
    inner = torch.diag(1 / shrink) - u.mT @ u
    return r + u @ torch.linalg.solve(inner, u.mT @ r)


def _by_group(groups: Sequence[str] | None, views: int, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """The number of each row's group, rows in the order of groups, and the size of each group."""
    if groups is None or len(set(groups)) < 2:
        own = np.arange(num)
    else:
        _, own = np.unique(np.asarray(groups), return_inverse=True)
    numbers = torch.from_numpy(own.astype(np.int64)).repeat(views)
    return numbers, torch.argsort(numbers, stable=True), torch.bincount(numbers)
