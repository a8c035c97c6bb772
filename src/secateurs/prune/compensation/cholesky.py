"""Cholesky factors of Gram matrices that rounding may have left not quite positive definite."""

from __future__ import annotations

import torch
from torch import Tensor

from secateurs.errors import InputError

GROWTH = 10.0  # of the lift from try to try


def factorise(matrix: Tensor, *, what: str = "matrix") -> Tensor:
    """The lower Cholesky factor (n, n), or (..., n, n), of a symmetric matrix in its own precision.

    Where rounding made it indefinite, its diagonal is lifted by the smallest tried share of its
    largest entry that makes it definite: from one rounding unit on, ten times more at each try. A
    matrix of zeros gets a lift of one rounding unit of one. Raises InputError, which names `what`,
    when an entry is not finite.

    >>> factorise(torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)).shape
    torch.Size([2, 2])
    """
    factor, wrong = torch.linalg.cholesky_ex(matrix)
    if not bool(wrong.any()) and bool(factor.diagonal(dim1=-2, dim2=-1).isfinite().all()):
        return factor
    if not bool(matrix.isfinite().all()):
        raise InputError(
            f"{what}: not finite: the images or the weights have NaN or infinite values"
        )
    largest = matrix.abs().amax((-2, -1))[..., None]
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    lift = torch.finfo(matrix.dtype).eps
    while True:  # ends at the latest when the diagonal dominates
        lifted = matrix.clone()
        lifted.diagonal(dim1=-2, dim2=-1).add_(lift * largest)
        again, failed = torch.linalg.cholesky_ex(lifted)
        # Of a batch, those that were definite keep their factor.
        factor = torch.where((wrong == 0)[..., None, None], factor, again)
        if not bool((failed.bool() & wrong.bool()).any()):
            return factor
        lift *= GROWTH
