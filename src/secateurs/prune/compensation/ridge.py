"""Ridge regression with its regularisation chosen by leave-one-out errors in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.compensation.ridge_factors import LARGE, by_inputs, by_samples
from secateurs.prune.statistics.gram import gram_of

RIDGES = tuple(10.0**k for k in range(-8, 3))  # relative to the mean squared singular value
ROWS = 4096  # samples in float64 at a time
TALL = 4  # samples for each input from which on a solution for each ridge takes longer
SMALLEST = torch.finfo(torch.float64).tiny

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def fit_ridge(
    x: Tensor, y: Tensor, ridges: Sequence[float] = RIDGES, *, copies: int = 1
) -> tuple[Tensor, Tensor, float]:
    """Ridge regression of y (samples, outputs) on x (samples, inputs), in float64.

    Returns the coefficients (outputs, inputs), the unpenalised intercept (outputs,) and the one of
    `ridges` with the least leave-one-out error, relative to the mean squared singular value of
    centred x. With `copies` the samples are so many views of the same images, all images in the
    first view, then all in the second; an image is left out in all its views at once, since its
    mirror image says nearly the same. Works on the smaller of the two Gram matrices: with fewer
    samples than inputs on theirs, otherwise on normal equations summed over pieces of the samples.
    Where both are large, ridges are tried from the largest down until the error rises. Raises
    InputError unless the ridges are positive and the samples whole views.
    """
    _check(ridges)
    _check_views(len(x), copies)
    if LARGE <= x.shape[1] <= len(x) < TALL * x.shape[1]:
        return _large(x, y, ridges, copies)
    if len(x) >= x.shape[1]:
        pieces = _pieces(len(x), copies)
        return fit_ridge_stream(
            lambda: ((x[rows], y[rows]) for rows in pieces), ridges=ridges, copies=copies
        )
    inputs = x.shape[1]
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    c, ridge = dual_ridge(gram_of(x.T), y, inputs, ridges, copies=copies)
    change = (x.T @ c).T
    return change, y_mean - change @ x_mean, ridge


def _large(
    x: Tensor, y: Tensor, ridges: Sequence[float], copies: int
) -> tuple[Tensor, Tensor, float]:
    """The same on many inputs and not many more samples."""
    x_mean, y_mean = x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)
    x = x.double() - x_mean
    scale = float(x.square().sum()) / x.shape[1]
    if scale == 0:
        return _constant(y_mean, x.shape[1], ridges)
    ridge, solution = by_inputs(x, y.double() - y_mean, scale, ridges, copies)
    return solution.T, y_mean - solution.T @ x_mean, ridge


def dual_ridge(
    gram: Tensor,
    y: Tensor,
    num_inputs: int,
    ridges: Sequence[float] = RIDGES,
    *,
    copies: int = 1,
) -> tuple[Tensor, float]:
    """The same from the Gram matrix (samples, samples) of centred x alone, and centred y.

    Returns c (samples, outputs), such that c' x are the coefficients, and the ridge chosen; all
    float64. Raises InputError unless the ridges are positive.

    >>> x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    >>> c, _ = dual_ridge(x @ x.T, 3 * x, 1, [1e-12])
    >>> round(float((x.T @ c).item()), 6)
    3.0
    """
    _check(ridges)
    _check_views(len(gram), copies)
    samples = len(gram)
    trace = float(gram.trace())
    if samples >= LARGE and trace > 0:
        ridge, c = by_samples(gram, y, trace / min(samples, num_inputs), ridges, copies)
        return c, ridge
    squares, u = _significant(*torch.linalg.eigh(gram))
    if len(squares) == 0:
        return torch.zeros_like(y), min(ridges)
    scale = float(squares.sum()) / min(samples, num_inputs)
    projected = u.T @ y  # (rank, outputs)
    errors = _errors(u, y, projected, squares, ridges, scale, samples, copies)
    ridge = ridges[int(errors.argmin())]
    return u @ (projected / (squares + ridge * scale)[:, None]), ridge


def left_out_error(
    x: Tensor, y: Tensor, *, ridges: Sequence[float] = RIDGES, copies: int = 1
) -> float:
    """Mean squared leave-one-out error of `fit_ridge`, summed over outputs, at the best ridge.

    x (samples, inputs), y (samples, outputs); float64 throughout.
    """
    _check(ridges)
    y = y.double() - y.mean(0, dtype=torch.float64)
    squares, u = _left_vectors(x)
    if len(squares) == 0:
        return float(y.square().sum()) / len(y)
    scale = float(squares.sum()) / min(x.shape)
    errors = _errors(u, y, u.T @ y, squares, ridges, scale, len(x), copies)
    return float(errors.amin()) / len(x)


def left_out(x: Tensor, y: Tensor, *, ridges: Sequence[float] = RIDGES, copies: int = 1) -> Tensor:
    """What `fit_ridge` at the ridge of least leave-one-out error gives for each image left out.

    x (samples, inputs), y (samples, outputs); returns (samples, outputs) float64. Exact, with the
    intercept fitted anew, from the hat matrix; the ridge's scale is that of all samples.
    """
    _check(ridges)
    mean = y.mean(0, dtype=torch.float64)
    y = y.double() - mean
    squares, u = _left_vectors(x)
    if len(squares) == 0:
        return mean.expand_as(y)
    scale, projected = float(squares.sum()) / min(x.shape), u.T @ y
    errors = _errors(u, y, projected, squares, ridges, scale, len(x), copies)
    shrink = squares / (squares + ridges[int(errors.argmin())] * scale)
    rows = _by_image(u, copies)
    one = torch.eye(copies, dtype=torch.float64, device=u.device) - 1 / len(x)
    rest = _by_image(y - u @ (shrink[:, None] * projected), copies)
    away = torch.linalg.solve(one - (rows * shrink) @ rows.mT, rest)
    return y + mean - away.transpose(0, 1).reshape(y.shape)


def _left_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values (rank,) and left singular vectors (samples, rank) of centred x."""
    u, values, _ = torch.linalg.svd(
        x.double() - x.mean(0, dtype=torch.float64), full_matrices=False
    )
    return _significant(values.square(), u)


def _by_image(rows: Tensor, copies: int) -> Tensor:
    """(samples, columns), view by view, as (images, copies, columns)."""
    return rows.view(copies, -1, rows.shape[1]).transpose(0, 1)


def fit_ridge_stream(
    batches: Batches, *, ridges: Sequence[float] = RIDGES, copies: int = 1
) -> tuple[Tensor, Tensor, float]:
    """The same from normal equations, for more samples than fit in memory at once.

    `batches()` gives the samples as pairs (rows, inputs) and (rows, outputs), and is called twice:
    for the sums, and for the leave-one-out errors (Allen's PRESS) of every ridge. Holds (inputs,
    inputs) and (inputs, outputs) float64 and one batch. With `copies` a batch has all views of its
    images, view by view. Raises InputError when there is no sample.
    """
    _check(ridges)
    shift: tuple[Tensor, Tensor] | None = None
    sums: list[Tensor] = []
    samples = 0
    for x, y in batches():
        x, y = x.double(), y.double()
        if shift is None:
            # Sums about a value near the mean: little cancels when the mean is taken out.
            shift = x.mean(0), y.mean(0)
        x, y = x - shift[0], y - shift[1]
        parts = [x.sum(0), y.sum(0), x.T @ x, x.T @ y]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
        samples += len(x)
    if shift is None or samples == 0:
        raise InputError("ridge: no sample to fit")
    x_mean, y_mean = sums[0] / samples, sums[1] / samples
    gram = sums[2] - samples * torch.outer(x_mean, x_mean)
    cross = sums[3] - samples * torch.outer(x_mean, y_mean)
    x_mean, y_mean = x_mean + shift[0], y_mean + shift[1]
    squares, v = _significant(*torch.linalg.eigh(gram))
    inputs = len(gram)
    if len(squares) == 0:
        return _constant(y_mean, inputs, ridges)
    root = squares.sqrt()
    scale = float(squares.sum()) / min(samples, inputs)
    projected = (v.T @ cross) / root[:, None]  # (rank, outputs)
    errors = torch.zeros(len(ridges), dtype=torch.float64, device=gram.device)
    for x, y in batches():
        u = ((x.double() - x_mean) @ v) / root
        rest = y.double() - y_mean
        errors += _errors(u, rest, projected, squares, ridges, scale, samples, copies)
    ridge = ridges[int(errors.argmin())]
    factor = root / (squares + ridge * scale)
    change = (v @ (factor[:, None] * projected)).T
    return change, y_mean - change @ x_mean, ridge


def _errors(
    u: Tensor,
    y: Tensor,
    projected: Tensor,
    squares: Tensor,
    ridges: Sequence[float],
    scale: float,
    samples: int,
    copies: int,
) -> Tensor:
    """Summed squared leave-one-out errors of these rows, (ridges,).

    `u` (rows, rank) are left singular vectors, `projected` (rank, outputs) is u'y over all samples.
    A residual is the part of y outside the span plus u (1 - shrink) projected: nothing cancels.
    With more outputs than rank inner products of residuals are taken instead, which cost rank
    products a row and ridge, whatever the number of outputs. An image's residuals r (copies,
    outputs), with its block H of the hat matrix, are (1 - H)^-1 r when it is left out.
    """
    _check_views(len(u), copies)
    by_image = partial(_by_image, copies=copies)
    few = projected.shape[1] <= len(projected)
    outside = y - u @ projected
    mixed = inner = floor = projected
    if not few:
        mixed = by_image(outside @ projected.T)  # (images, copies, rank)
        inner = projected @ projected.T
        floor = by_image(outside) @ by_image(outside).mT  # (images, copies, copies)
    rows = by_image(u)
    one = torch.eye(copies, dtype=torch.float64, device=u.device) - 1 / samples
    errors = torch.empty(len(ridges), dtype=torch.float64, device=u.device)
    for k, ridge in enumerate(ridges):
        shrink = squares / (squares + ridge * scale)
        kept = ridge * scale / (squares + ridge * scale)  # 1 - shrink
        if few:
            rest = by_image(outside + u @ (kept[:, None] * projected))
            square = rest @ rest.mT
        else:
            part = rows * kept
            cross = mixed @ part.mT
            square = floor + cross + cross.mT + (part @ inner) @ part.mT
        # 1 less the image's block of the hat matrix. A product for each ridge: the outer products
        # of the rows, taken once, are `copies` times as large as the samples' Gram matrix.
        left = one - (rows * shrink) @ rows.mT
        if copies > 1:
            # On the axes of its eigenvectors the block is diagonal.
            left, axes = torch.linalg.eigh(left)
            square = axes.mT @ square @ axes
        else:
            left = left[:, 0]
        error = square.diagonal(dim1=1, dim2=2).clamp(min=0)
        errors[k] = (error / left.clamp(min=1e-12).square()).sum()
    return errors


def _pieces(num: int, copies: int) -> list[Tensor]:
    """Rows of whole images, at most some `ROWS` at a time, view by view."""
    _check_views(num, copies)
    rows = torch.arange(num).view(copies, -1)  # (copies, images)
    return [part.flatten() for part in rows.split(max(1, ROWS // copies), dim=1)]


def _significant(squares: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues above rounding, with their vectors as columns."""
    squares = squares.clamp(min=0)
    limit = squares.amax() * len(squares) * torch.finfo(torch.float64).eps
    keep = squares > limit.clamp(min=SMALLEST)
    return squares[keep], vectors[:, keep]


def _constant(y_mean: Tensor, inputs: int, ridges: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    """The fit when the inputs never change."""
    return y_mean.new_zeros(len(y_mean), inputs), y_mean, min(ridges)


def _check_views(num: int, copies: int) -> None:
    if num % copies:
        raise InputError(f"ridge: {num} samples are not {copies} views of the same images")


def _check(ridges: Sequence[float]) -> None:
    if not ridges or min(ridges) <= 0:
        raise InputError(f"ridges: expected positive numbers, got {list(ridges)}")
