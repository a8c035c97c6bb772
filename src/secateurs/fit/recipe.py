"""What a training does beside the plain loop: each part is off by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.limits import check_fields
from secateurs.nets.layers import BATCH_NORMS


@dataclass(frozen=True)
class Recipe:
    """The parts of a recipe of fine-tuning.

    `layer_decay` in 0..1 is the learning rate of the first trained layer as a share of the last
    one's; those between lie on a geometric row (layer-wise learning-rate decay, Howard and Ruder
    2018). `l2_sp` pulls the weights towards those of the start, decoupled from Adam's moments: at
    each step they go back by the share rate x `l2_sp` of the way, by the rate of their layer (Li,
    Grandvalet and Davoine 2018, in the manner of Loshchilov and Hutter 2019). `mixup` is the alpha
    of the Beta distribution from which the share of a second image of the batch is drawn, 0 for
    none (Zhang et al. 2018); what is mixed is what the trained part receives. `average` in 0..1 is
    the decay of the running average of the weights, which is validated and kept in their place, 0
    for none (Polyak and Juditsky 1992). `class_weights` "balanced" weighs each image's loss by one
    over the size of its
    class. `norms` "fixed" keeps the statistics of every batch norm, "trained" takes those of each
    batch and a running average of them; "auto" is fixed where a study starts from pretrained
    weights, and else trained.
    """

    layer_decay: float = 1.0
    l2_sp: float = 0.0
    mixup: float = 0.0
    average: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    norms: Literal["auto", "trained", "fixed"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, allowed in (
            ("class_weights", ("none", "balanced")),
            ("norms", ("auto", "trained", "fixed")),
        ):
            if getattr(self, name) not in allowed:
                words = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
                raise InputError(f"{name} must be {words}, got {getattr(self, name)!r}")

    def settled(self, *, fixed: bool) -> Recipe:
        """The recipe with norms that are fixed or trained, where they were left open."""
        if self.norms != "auto":
            return self
        return replace(self, norms="fixed" if fixed else "trained")

    def changes(self) -> dict[str, Any]:
        """The fields that are not the default's.

        >>> Recipe(mixup=0.2).changes(), Recipe().changes()
        ({'mixup': 0.2}, {})
        """
        plain = Recipe.__dataclass_fields__
        return {
            name: getattr(self, name)
            for name, field in plain.items()
            if getattr(self, name) != field.default
        }


def rate_shares(tail: nn.Module, layer_decay: float) -> dict[str, float]:
    """Each trained parameter's learning rate as a share of the last layer's, by name.

    Parameters of one module share a rate; modules count in the order of registration.

    >>> rate_shares(nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)), 0.5)
    {'0.weight': 0.5, '0.bias': 0.5, '2.weight': 1.0, '2.bias': 1.0}
    """
    owners: dict[str, int] = {}
    shares: dict[str, int] = {}
    for name, parameter in tail.named_parameters():
        if parameter.requires_grad:
            shares[name] = owners.setdefault(name.rpartition(".")[0], len(owners))
    last = max(len(owners) - 1, 1)
    return {
        name: layer_decay ** ((len(owners) - 1 - number) / last) for name, number in shares.items()
    }


def parameter_groups(tail: nn.Module, *, lr: float, layer_decay: float) -> list[dict[str, Any]]:
    """Adam's parameter groups: one for all where the rates agree, else one for each rate."""
    trained = {name: p for name, p in tail.named_parameters() if p.requires_grad}
    if layer_decay == 1:
        return [{"params": list(trained.values()), "share": 1.0}]
    groups: dict[float, list[nn.Parameter]] = {}
    for name, share in rate_shares(tail, layer_decay).items():
        groups.setdefault(share, []).append(trained[name])
    return [{"params": found, "share": share, "lr": lr * share} for share, found in groups.items()]


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """A weight (classes,) for each class such that the classes weigh the same, mean 1 over images.

    A class without an image has weight 0.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = counts > 0
    weights = torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.float()


@dataclass(frozen=True)
class Mix:
    """A batch's second images (rows of the batch) and the share of the first."""

    partners: Tensor
    share: float

    def inputs(self, batch: Tensor) -> Tensor:
        """Each input (m, ...) mixed with its partner."""
        return self.share * batch + (1 - self.share) * batch[self.partners]


def draw_mix(num: int, alpha: float, *, seed: int, device: torch.device) -> Mix:
    """The partners of `num` images and the share, a pure function of the seed."""
    draws = np.random.default_rng(seed)
    partners = torch.from_numpy(draws.permutation(num))
    share = float(draws.beta(alpha, alpha))
    return Mix(partners.to(device), max(share, 1 - share))


def fix_norms(tail: nn.Module) -> None:
    """Put every batch norm into eval mode, so that it keeps its statistics."""
    for part in tail.modules():
        if isinstance(part, BATCH_NORMS):
            part.eval()


@torch.no_grad()
def pull_back(trained: Iterable[Tensor], start: Iterable[Tensor], shares: Iterable[float]) -> None:
    """Move each weight by its share of the way back to the start, in place."""
    for weight, origin, share in zip(trained, start, shares, strict=True):
        weight.lerp_(origin, share)


class Average:
    """The running average of a state's tensors; those that are no floating point are copied.

    The decay of step t is at most (1 + t) / (10 + t), so that the average forgets the start.
    """

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.clone() for name, tensor in state.items()}

    @torch.no_grad()
    def add(self, state: dict[str, Tensor], step: int) -> None:
        """Take in the state after step number `step`, from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in state.items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - keep)
            else:
                self.state[name].copy_(tensor)
