"""Cuts of one layer, each with its compensation, at little more than what differs between them.

What all cuts need is computed once: the samples' Gram matrix over every unit, and what the next
layer receives. A cut then adds or takes away the units in which it differs from the last. The
weights are those of `prune_layer` with the same selection, to float64 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from secateurs.prune.compensation.merging import group_means, group_sums, groups
from secateurs.prune.compensation.outgoing_weights import Outgoing, refit
from secateurs.prune.compensation.ridge import dual_ridge
from secateurs.prune.layer import Compensation, compensate
from secateurs.prune.layer_grid import LayerView
from secateurs.prune.selection.pairwise import Selection


@dataclass(frozen=True)
class FittedCut:
    """A layer cut and compensated: who survives, and the new weights of the layer that reads it."""

    selection: Selection
    outgoing: Outgoing
    place: Tensor | None  # (units,) the survivor that each unit is merged into, -1 for none

    @torch.no_grad()
    def logits(self, view: LayerView, outputs: Tensor) -> Tensor:
        """Logits (samples, classes) of the cut network for `outputs` (samples, units) of the layer.

        The outputs are those of the whole layer, before any cut.
        """
        if self.place is None:
            received = view.receive(outputs[:, self.selection.survivors])
        else:
            kept = len(self.selection.survivors)
            means = group_means(outputs.T, self.place, kept).T
            received = view.receive(means.to(outputs.dtype))
        answers = nn.functional.linear(received, self.outgoing.weight, self.outgoing.bias)
        return view.logits(answers)


UPDATES = 16  # of a Gram matrix from cut to cut before it is summed anew: rounding stays small


@dataclass
class _Last:
    """The Gram matrix of the cut before, over the units in `same`, and how it was come by."""

    same: Tensor
    gram: Tensor
    updates: int


@dataclass(frozen=True)
class Refits:
    """What the refits of a layer's cuts share."""

    view: LayerView
    last: list[_Last] = field(default_factory=list[_Last])

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centred activations (units, samples), their mean, the weight (units, outputs), the Gram.

        All float64; the Gram matrix (samples, samples) is over every unit.
        """
        rows = self.view.train.T.double().contiguous()
        mean = rows.mean(1)
        rows -= mean[:, None]
        return rows, mean, self.view.weight.T.double().contiguous(), rows.T @ rows

    @cached_property
    def _before(self) -> Tensor:
        """The layer's own outputs on the training inputs, (units, samples)."""
        assert self.view.before is not None
        return self.view.before.T.contiguous()

    def _gram(self, same: Tensor) -> Tensor:
        """The Gram matrix (samples, samples) over the units in `same` (units,) bool.

        From that over all units, over none or over the last cut's, whichever differs least.
        """
        rows, _, _, whole = self._sums
        bases = [
            _Last(torch.ones_like(same), whole, 0),
            _Last(torch.zeros_like(same), torch.zeros_like(whole), 0),
            *self.last,
        ]
        base = min(bases, key=lambda one: int((one.same ^ same).sum()))
        more, less = rows[same & ~base.same], rows[base.same & ~same]
        gram = base.gram + more.T @ more - less.T @ less
        fresh = base.updates + 1 < UPDATES
        self.last[:] = [_Last(same, gram, base.updates + 1)] if fresh else []
        return gram

    @cached_property
    def _target(self) -> Tensor:
        """What the next layer gave before any cut (samples, outputs), float64."""
        rows, mean, weight, _ = self._sums
        offset = 0 if self.view.offset is None else self.view.offset.double()
        return rows.T @ weight + (mean @ weight + offset)

    def prepare(self) -> None:
        """Compute now what the first refit would wait for."""
        _ = self._sums, self._target, self._before

    @torch.no_grad()
    def fit(self, selection: Selection, step: Compensation) -> FittedCut:
        """The cut of `selection`, compensated by `step`."""
        view = self.view
        if step not in ("least_squares", "merge"):
            new = compensate(step, view.train, view.weight, view.offset, selection)
            return FittedCut(selection, new, None)
        place = groups(selection) if step == "merge" else None
        kept = len(selection.survivors)
        if kept >= len(view.train):
            return FittedCut(selection, self._dual(selection, place), place)
        if place is None:
            new = compensate(
                step, view.train, view.weight, view.offset, selection, copies=view.copies
            )
            return FittedCut(selection, new, None)
        merged = self._merged(place, kept)
        anchor = group_sums(self._sums[2], place, kept)
        new = refit(merged.T, anchor.T, self._target, copies=view.copies)
        return FittedCut(selection, self._typed(new), place)

    def _merged(self, place: Tensor, kept: int) -> Tensor:
        """What the next layer receives of groups (kept, samples), float64."""
        means = group_means(self._before, place, kept)
        return self.view.receive(means.to(self.view.train.dtype)).double()

    def _dual(self, selection: Selection, place: Tensor | None) -> Outgoing:
        """Refit to at least as many survivors as there are samples."""
        rows, mean, weight, _ = self._sums
        same = torch.zeros_like(selection.dead)  # units that the next layer receives as before
        same[selection.survivors] = True
        kept = len(selection.survivors)
        new, new_mean, anchor = rows[:0], mean[:0], weight[:0]
        alone = torch.ones_like(selection.survivors, dtype=torch.bool)
        if place is not None:
            # Only groups of several are another unit than before.
            alone = torch.bincount(place[place >= 0], minlength=kept) == 1
            several = (~alone).nonzero().flatten()
            same[selection.survivors[several]] = False
            member = torch.full((kept + 1,), -1, dtype=torch.int64, device=place.device)
            member[several] = torch.arange(len(several), device=place.device)
            inside = member[place]  # the last entry answers for units of no group
            new = self._merged(inside, len(several))
            new_mean = new.mean(1)
            new = new - new_mean[:, None]
            anchor = group_sums(weight, inside, len(several))
        other = (~same).nonzero().flatten()
        gram = self._gram(same) + new.T @ new
        missing = rows[other].T @ weight[other] - new.T @ anchor
        shift = mean[other] @ weight[other] - new_mean @ anchor
        coefficients, ridge = dual_ridge(gram, missing, kept, copies=self.view.copies)
        fitted = torch.empty(kept, weight.shape[1], dtype=weight.dtype, device=weight.device)
        means = torch.empty(kept, dtype=mean.dtype, device=mean.device)
        old = selection.survivors[alone]
        fitted[alone], means[alone] = rows[old] @ coefficients, mean[old]
        fitted[~alone], means[~alone] = new @ coefficients, new_mean
        bias = shift - means @ fitted
        bias += 0 if self.view.offset is None else self.view.offset.double()
        fitted[alone] += weight[old]
        fitted[~alone] += anchor
        return self._typed(Outgoing(fitted.T, bias, ridge))

    def _typed(self, new: Outgoing) -> Outgoing:
        dtype = self.view.weight.dtype
        return Outgoing(new.weight.to(dtype), new.bias.to(dtype), new.ridge)
