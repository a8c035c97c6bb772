"""The least-squares refit of many cuts of one layer, of which only what they answer is wanted.

In the dual form a ridge regression needs the samples' Gram matrix over the survivors alone, and
what it answers on other images needs their products with the samples. Both are sums over units:
what all cuts keep is summed once, and a cut adds its own few. No weight is ever formed, so the
next layer may have any number of outputs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.prune.compensation import RIDGES


@dataclass(frozen=True)
class SharedRidge:
    """Sums over the units that every cut keeps, and each unit's own part; all float64."""

    train: Tensor  # (units, samples) activations less the unit's mean over the samples
    images: Tensor  # (units, images) activations less the same mean
    answers: Tensor  # (images, outputs) what the next layer gives before any cut
    weight: Tensor  # (units, outputs) of the next layer, a unit's in one piece
    kept: Tensor  # (units,) bool: kept by every cut
    gram: Tensor  # (samples, samples) over `kept`
    cross: Tensor  # (images, samples) over `kept`

    def refit(self, alive: Tensor, *, ridges: Sequence[float] = RIDGES) -> tuple[Tensor, float]:
        """What the next layer gives (images, outputs) when refitted to the units in `alive`.

        The same as `least_squares` on the samples; also the ridge chosen. `alive` (units,) bool
        holds at least the units of `kept`.
        """
        own = (alive & ~self.kept).nonzero().flatten()
        gone = (~alive).nonzero().flatten()
        train = self.train[own]
        gram = self.gram + train.T @ train
        cross = self.cross + self.images[own].T @ train
        lost = self.weight[gone]  # (gone, outputs)
        missing = self.train[gone].T @ lost
        coefficients, ridge = dual_ridge(gram, missing, int(alive.sum()), ridges)
        answers = self.answers - self.images[gone].T @ lost + cross @ coefficients
        return answers, ridge


def share(
    train: Tensor, images: Tensor, weight: Tensor, answers: Tensor, kept: Tensor
) -> SharedRidge:
    """Prepare refits of cuts that all keep the units in `kept` (units,) bool.

    `train` (samples, units) and `images` (images, units) are activations as the next layer
    receives them, `weight` (outputs, units) its weight, `answers` (images, outputs) what it gives.
    """
    samples = train.T.double().contiguous()
    mean = samples.mean(1, keepdim=True)
    samples -= mean
    others = images.T.double().contiguous() - mean
    common = kept.nonzero().flatten()
    mine = samples[common]
    return SharedRidge(
        train=samples,
        images=others,
        answers=answers.double(),
        weight=weight.T.double().contiguous(),
        kept=kept,
        gram=mine.T @ mine,
        cross=others[common].T @ mine,
    )


def dual_ridge(
    gram: Tensor, y: Tensor, num_inputs: int, ridges: Sequence[float]
) -> tuple[Tensor, float]:
    """Ridge regression of centred y (samples, outputs) from the Gram matrix of centred inputs.

    Returns c (samples, outputs), such that x' c are the coefficients of x (samples, inputs), and
    the ridge with the least leave-one-out error, as `fit_ridge` chooses it.

    >>> x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    >>> c, _ = dual_ridge(x @ x.T, 3 * x, 1, [1e-12])
    >>> round(float((x.T @ c).item()), 6)
    3.0
    """
    samples = len(gram)
    squares, u = torch.linalg.eigh(gram)
    squares = squares.clamp_(min=0)
    significant = squares > squares.amax() * samples * torch.finfo(torch.float64).eps
    squares, u = squares[significant], u[:, significant]
    if len(squares) == 0:
        return torch.zeros_like(y), min(ridges)
    scale = float(squares.sum()) / min(samples, num_inputs)
    # An error is a sum of squared rows, which a rotation of the outputs leaves as it is.
    rows = y if y.shape[1] <= samples else torch.linalg.qr(y.T, mode="r").R.T
    turned = u.T @ rows  # (rank, outputs)
    penalties = scale * torch.tensor(ridges, dtype=gram.dtype, device=gram.device)
    shrink = squares[:, None] / (squares[:, None] + penalties)  # (rank, ridges)
    fitted = u @ (shrink[:, :, None] * turned[:, None]).flatten(1)
    residual = rows[:, None] - fitted.view(samples, len(ridges), -1)
    left = 1 - 1 / samples - u.square() @ shrink  # 1 less the diagonal of the hat matrix
    errors = (residual.square().sum(2) / left.clamp(min=1e-12).square()).sum(0)
    ridge = ridges[int(errors.argmin())]
    return u @ ((u.T @ y) / (squares + ridge * scale)[:, None]), ridge


@contextmanager
def one_thread() -> Generator[None]:
    """Compute on one thread meanwhile; how many there were is restored after, also on an error.

    Decompositions of a few hundred rows are thousands of short parallel steps: two threads are
    little faster than one on an idle machine, and several times slower on a busy one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
