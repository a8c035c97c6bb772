"""What a layer's inputs lose when sums about zero are centred in float32, and what centring keeps.

Inputs are a constant in 1e-3..1 plus noise whose size, relative to the constant, falls from row to
row. For each: how far the centred Gram matrix, the loss of removing units, and their order are from
those in float64, with sums about zero (until November 2026) and about a running mean (now).

    python benchmarks/pruning/centring.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from secateurs.prune.allocation.elimination import Reader, eliminate
from secateurs.prune.allocation.survey import _Sums

SAMPLES, INPUTS, OUTPUTS, BATCH = 4000, 32, 8, 250
RELATIVE_NOISE = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def about_zero(rows: Tensor) -> Tensor:
    """The centred Gram matrix from float32 sums about zero."""
    gram, total = torch.zeros(INPUTS, INPUTS), torch.zeros(INPUTS, dtype=torch.float64)
    for part in rows.split(BATCH):
        gram.addmm_(part.T, part)
        total += part.sum(0)
    mean = (total / len(rows)).float()
    return (gram / len(rows)).addr_(mean, mean, alpha=-1)


def about_a_mean(rows: Tensor) -> Tensor:
    """The same as `survey` does it."""
    sums = _Sums("fc", nn.Linear(INPUTS, OUTPUTS), 1)
    for part in rows.split(BATCH):
        sums.add(part)
    gram = sums.reader(torch.ones(INPUTS, OUTPUTS), _columns(), centred=True).gram
    assert gram is not None
    return gram


def _columns() -> Tensor:
    return torch.arange(INPUTS)[:, None]


def main() -> None:
    """Print one row per size of noise."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(INPUTS, OUTPUTS, generator=generator)
    constant = torch.logspace(-3, 0, INPUTS)
    mixing = torch.eye(INPUTS) + 0.3 * torch.randn(INPUTS, INPUTS, generator=generator)
    print("| noise / constant | sums about | Gram error | loss error | units of 16 removed alike |")
    print("|---|---|---|---|---|")
    for noise in RELATIVE_NOISE:
        rows = constant + noise * constant * (
            torch.randn(SAMPLES, INPUTS, generator=generator) @ mixing
        )
        exact = rows.double() - rows.double().mean(0)
        truth = exact.T @ exact / SAMPLES
        right = eliminate([Reader(weight, _columns(), SAMPLES, gram=truth)])
        for name, gram in (("zero", about_zero(rows)), ("a running mean", about_a_mean(rows))):
            far = float((gram.double() - truth).norm() / truth.norm())
            found = eliminate([Reader(weight, _columns(), SAMPLES, gram=gram)])
            error = float((found.loss - right.loss).abs().max() / right.loss.max())
            same = len(set(found.order[:16].tolist()) & set(right.order[:16].tolist()))
            print(f"| {noise:g} | {name} | {far:.1e} | {error:.1e} | {same} |")


if __name__ == "__main__":
    main()
