"""Leave-one-out errors of a large ridge regression from one Cholesky factor for each ridge.

Eigenvectors give the errors of all ridges at once, but of thousands of samples they take as long as
dozens of factors. From the largest ridge down, a few factors tell which one is best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateurs.prune.compensation.cholesky import factorise
from secateurs.prune.statistics.gram import gram_of

LARGE = 512  # samples or inputs, whichever are fewer, from which on factors are faster
LEAST = 1e-12  # of what is left to an image: less is rounding


def least_error(
    ridges: Sequence[float], error: Callable[[float], tuple[float, Tensor]]
) -> tuple[float, Tensor]:
    """The ridge of the least error and its solution; `error(ridge)` gives both.

    Ridges are tried from the largest down until the error rises, as it does beyond its minimum.

    >>> tried = []
    >>> def error(ridge):
    ...     tried.append(ridge)
    ...     return abs(ridge - 0.1), torch.zeros(1)
    >>> least_error([1e-4, 1e-3, 1e-2, 1e-1, 1.0], error)[0], tried
    (0.1, [1.0, 0.1, 0.01])
    """
    best: tuple[float, float, Tensor] | None = None
    for ridge in sorted(ridges, reverse=True):
        found, solution = error(ridge)
        if best is not None and found > best[0]:
            break
        best = found, ridge, solution
    assert best is not None
    return best[1], best[2]


def by_samples(
    gram: Tensor, y: Tensor, scale: float, ridges: Sequence[float], copies: int
) -> tuple[float, Tensor]:
    """The ridge of least leave-one-out error, and c (samples, outputs), see `dual_ridge`.

    `gram` (samples, samples) of centred x, `y` (samples, outputs) centred; float64. A sample's
    residual is the ridge times c; what the fit leaves to an image is the ridge times its block of
    the inverse, less what the intercept takes.
    """

    def error(ridge: float) -> tuple[float, Tensor]:
        lift = ridge * scale
        lifted = gram.clone()
        lifted.diagonal().add_(lift)
        inverse = torch.cholesky_inverse(factorise(lifted, what="samples"))
        c = inverse @ y
        blocks = lift * _diagonal_blocks(inverse, copies) - 1 / len(y)
        return _left_out(blocks, lift * c, copies), c

    return least_error(ridges, error)


def by_inputs(
    x: Tensor, y: Tensor, scale: float, ridges: Sequence[float], copies: int
) -> tuple[float, Tensor]:
    """The ridge of least leave-one-out error, and the coefficients (inputs, outputs).

    `x` (samples, inputs) and `y` (samples, outputs) are centred, float64.
    """
    gram, cross = gram_of(x), x.T @ y

    def error(ridge: float) -> tuple[float, Tensor]:
        lifted = gram.clone()
        lifted.diagonal().add_(ridge * scale)
        factor = factorise(lifted, what="inputs")
        solution = torch.cholesky_solve(cross, factor)
        rows = torch.linalg.solve_triangular(factor, x.T, upper=False).T
        images = _by_image(rows, copies)
        one = torch.eye(copies, dtype=x.dtype, device=x.device) - 1 / len(x)
        return _left_out(one - images @ images.mT, y - x @ solution, copies), solution

    return least_error(ridges, error)


def _left_out(blocks: Tensor, residuals: Tensor, copies: int) -> float:
    """Summed squared errors of images left out, in all their copies at once.

    `blocks` (images, copies, copies) are what the fit leaves to each image: 1 less its block of the
    hat matrix. `residuals` (samples, outputs), view by view.
    """
    rest = _by_image(residuals, copies)
    if copies == 1:
        return float((rest / blocks.clamp(min=LEAST)).square().sum())
    values, axes = torch.linalg.eigh(blocks)
    return float((axes.mT @ rest / values.clamp(min=LEAST)[..., None]).square().sum())


def _diagonal_blocks(matrix: Tensor, copies: int) -> Tensor:
    """Each image's block (images, copies, copies) of (samples, samples), view by view."""
    images = len(matrix) // copies
    return matrix.view(copies, images, copies, images).diagonal(dim1=1, dim2=3).permute(2, 0, 1)


def _by_image(rows: Tensor, copies: int) -> Tensor:
    """(samples, columns), view by view, as (images, copies, columns)."""
    return rows.reshape(copies, -1, rows.shape[1]).transpose(0, 1)
