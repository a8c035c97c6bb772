"""The least-squares refit of many cuts of one layer, of which only what they answer is wanted.

In the dual form a ridge regression needs the samples' Gram matrix over the survivors alone, and
what it answers on other images needs their products with the samples. Both are sums over units:
what all cuts keep is summed once, and a cut adds its own few. No weight is ever formed, so the
next layer may have any number of outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.prune.compensation.ridge import RIDGES, dual_ridge


@dataclass(frozen=True)
class Merged:
    """Groups of units of a cut, and what the unit that stands for each gives once it is merged."""

    members: Tensor  # (units,) bool: in a group of two or more, its survivor included
    train: Tensor  # (groups, samples) float64 activations, as the next layer receives them
    images: Tensor  # (groups, images)
    anchor: Tensor  # (groups, outputs) float64, sums of the members' outgoing weights


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

    def refit(
        self,
        alive: Tensor,
        merged: Merged | None = None,
        *,
        ridges: Sequence[float] = RIDGES,
        copies: int = 1,
    ) -> tuple[Tensor, float]:
        """What the next layer gives (images, outputs) when refitted to the units in `alive`.

        The same as `least_squares` on the samples, or as `merge` with the groups in `merged`; also
        the ridge chosen. `alive` (units,) bool holds at least the units of `kept`, of which none
        stands for a group.
        """
        changed = ~alive
        if merged is not None:
            changed = changed | merged.members
        own = (~changed & ~self.kept).nonzero().flatten()
        gone = changed.nonzero().flatten()
        train, images = self.train[own], self.images[own]
        lost = self.weight[gone]  # (gone, outputs)
        missing = self.train[gone].T @ lost
        answers = self.answers - self.images[gone].T @ lost
        if merged is not None:
            mean = merged.train.mean(1, keepdim=True)
            new, others = merged.train - mean, merged.images - mean
            missing -= new.T @ merged.anchor
            answers += others.T @ merged.anchor
            train, images = torch.cat([train, new]), torch.cat([images, others])
        gram = self.gram + train.T @ train
        cross = self.cross + images.T @ train
        coefficients, ridge = dual_ridge(gram, missing, int(alive.sum()), ridges, copies=copies)
        return answers + cross @ coefficients, ridge


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
