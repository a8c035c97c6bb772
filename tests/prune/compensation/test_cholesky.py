from __future__ import annotations

import pytest
import torch

from secateurs.errors import InputError
from secateurs.prune.compensation.cholesky import factorise


def test_a_definite_matrix_has_the_factor_of_torch():
    torch.manual_seed(0)
    rows = torch.randn(40, 6, dtype=torch.float64)
    gram = rows.T @ rows
    torch.testing.assert_close(factorise(gram), torch.linalg.cholesky(gram))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e12])
def test_a_matrix_that_rounding_made_indefinite_is_lifted_a_little(dtype, scale):
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    gram = scale * (rows.T @ rows)  # rank 3 of 8
    gram.diagonal().sub_(1e-7 * float(gram.abs().max()))
    factor = factorise(gram)
    # The least lift that a tenfold search finds: at most ten times what was taken away.
    away = (factor @ factor.T - gram).abs().max()
    assert 0 < away <= 2e-5 * gram.abs().max()


def test_zeros_have_a_factor():
    factor = factorise(torch.zeros(4, 4, dtype=torch.float64))
    assert bool((factor.diagonal() > 0).all())


def test_of_a_batch_only_the_indefinite_ones_are_lifted():
    good = torch.eye(3, dtype=torch.float64) * 2
    bad = torch.ones(3, 3, dtype=torch.float64)
    factors = factorise(torch.stack([good, bad]))
    assert torch.equal(factors[0], torch.linalg.cholesky(good))
    torch.testing.assert_close(factors[1] @ factors[1].T, bad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(value):
    matrix = torch.eye(3)
    matrix[1, 1] = value
    with pytest.raises(InputError, match="Gram matrix: not finite"):
        factorise(matrix, what="Gram matrix")
