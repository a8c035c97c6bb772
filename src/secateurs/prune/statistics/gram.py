"""Sums of outer products of rows, half of them by symmetry."""

from __future__ import annotations

import torch

TILE = 768  # columns of a product; fewer are one product


def add_products(gram: torch.Tensor, rows: torch.Tensor) -> None:
    """Add rowsT rows to the lower triangle of (inputs, inputs), in place.

    What is above the diagonal has no meaning until `mirror`. `rows` are (samples, inputs).
    """
    for start in range(0, len(gram), TILE):
        end = min(start + TILE, len(gram))
        gram[start:, start:end].addmm_(rows[:, start:].T, rows[:, start:end])


def mirror(gram: torch.Tensor) -> torch.Tensor:
    """The same matrix with what is below the diagonal above it too, in place."""
    for start in range(0, len(gram), TILE):
        end = min(start + TILE, len(gram))
        gram[start:end, end:] = gram[end:, start:end].T
    return gram


def gram_of(rows: torch.Tensor) -> torch.Tensor:
    """The sum (inputs, inputs) of the outer products of (samples, inputs).

    >>> gram_of(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    tensor([[1., 2.],
            [2., 5.]])
    """
    gram = rows.new_zeros(rows.shape[1], rows.shape[1])
    add_products(gram, rows)
    return mirror(gram)
