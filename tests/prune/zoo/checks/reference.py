"""An independent check of a cut: every weight that is gone is zero in the network it came from.

All weights of a module are made distinct, so that those that a pruned copy still has are known by
their values, whichever tool cut it. In the reference the others are zero: a unit that is gone makes
nothing, and nothing reads it. Layer, RMS and group norms are computed over the channels that are
left, in the groups that they were in, and weights are standardised over those that are left.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from shapes import computed_weights, published, written_out
from shapes.entry import Entry, run
from torch import Tensor, nn

from secateurs.nets.trace import copied, tensors_of

LIMIT = 1e-5  # of the effect of the cut
SAMPLES = 6
ACROSS = (  # what they make is along the second axis of their weight
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase),
)


def distinct(entry: Entry, seed: int = 0) -> nn.Module:
    """The module in float64, with no two weights alike."""
    model = entry.built().double()
    for parameter in model.parameters():
        if parameter.is_complex():
            parameter.data = parameter.data.to(torch.complex128)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += 0.1 * noise
    return model


def example(entry: Entry, samples: int = SAMPLES, seed: int = 5) -> Any:
    """Example inputs in float64."""
    found = entry.example(samples, seed)
    parts = found.items() if isinstance(found, dict) else enumerate(found)
    changed = {key: part.double() if part.is_floating_point() else part for key, part in parts}
    return changed if isinstance(found, dict) else tuple(changed.values())


def error(whole: nn.Module, pruned: nn.Module, inputs: Any) -> float:
    """The largest difference of the outputs relative to the effect of the cut; inf for shapes.

    Raises whatever the pruned module raises when it runs.
    """
    before, after = outputs(whole, inputs), outputs(pruned, inputs)
    with norms_of_survivors():
        expected = outputs(zeroed(whole, pruned), inputs)
    if [part.shape for part in after] != [part.shape for part in expected]:
        return math.inf
    return max(_relative(a, b, c) for a, b, c in zip(before, after, expected, strict=True))


def zeroed(whole: nn.Module, pruned: nn.Module) -> nn.Module:
    """A copy in which every weight is zero that the pruned module does not have."""
    left = torch.cat([keys(parameter).flatten() for parameter in pruned.parameters()])
    found = copied(whole)
    for parameter in found.parameters():
        parameter.data *= torch.isin(keys(parameter), left)
    return found


def keys(parameter: Tensor) -> Tensor:
    """Real numbers by which a parameter's entries are known."""
    known = parameter.detach()
    return known.real if known.is_complex() else known


def uncut(entry: Entry, whole: nn.Module, pruned: nn.Module) -> list[str]:
    """The layers of the entry's groups whose outputs the pruned module still has all of."""
    left = torch.cat([keys(parameter).flatten() for parameter in pruned.parameters()])
    found: list[str] = []
    for path, units in entry.groups.items():
        weight, axis = _weight(whole, path, units if isinstance(units, frozenset) else {units})
        rows = torch.isin(keys(weight), left).movedim(axis, 0).flatten(1).any(1)
        if rows.all():
            found.append(path)
    return found


def _weight(whole: nn.Module, path: str, units: Collection[int]) -> tuple[Tensor, int]:
    """What makes the units of a group, and along which axis."""
    own = dict(whole.named_parameters(remove_duplicate=False))
    if path in own:  # a parameter
        return own[path], next(a for a, size in enumerate(own[path].shape) if size in units)
    for part in whole.get_submodule(path).modules():
        weights = dict(part.named_parameters(recurse=False))
        names = [name for name in weights if "weight" in name or name.startswith("parametr")]
        if names:
            turned = isinstance(part, ACROSS) and getattr(part, "groups", 1) == 1
            return weights[next((n for n in names if "hh" in n), names[0])], int(turned)
    raise AssertionError(f"{path} has no weights")


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All floating-point tensors that a module gives."""
    with torch.no_grad():
        found = tensors_of(run(model, copy.deepcopy(inputs)))
    return [part for part in found if part.is_floating_point()]


def _relative(before: Tensor, after: Tensor, expected: Tensor) -> float:
    effect = float((before - expected).abs().max())
    difference = float((after - expected).abs().max())
    scale = float(expected.abs().max())
    if difference <= 1e-12 * max(scale, 1.0):  # rounding
        return 0.0
    return difference / effect if effect else math.inf


@contextmanager
def norms_of_survivors() -> Generator[None]:
    """Meanwhile norms leave out channels that are zero everywhere."""
    with (
        mock.patch.object(F, "layer_norm", layer_norm),
        mock.patch.object(F, "rms_norm", rms_norm),
        mock.patch.object(F, "group_norm", group_norm),
        mock.patch.object(torch, "_weight_norm", weight_norm),
        mock.patch.object(import_module("torch.nn.utils.weight_norm"), "_weight_norm", weight_norm),
        mock.patch.object(written_out, "channel_mean", channel_mean),
        mock.patch.object(published, "channel_mean", channel_mean),
        mock.patch.object(computed_weights, "input_mean", input_mean),
        mock.patch.object(
            computed_weights, "input_centred", lambda w: (w - input_mean(w)) * (w != 0)
        ),
        mock.patch.object(
            published, "centred", lambda x, axis: (x - channel_mean(x, axis)) * (x != 0)
        ),
        mock.patch.object(
            written_out, "centred", lambda x, axis: (x - channel_mean(x, axis)) * (x != 0)
        ),
    ):
        yield


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """A layer norm over the places that are not zero in all samples."""
    axes, alive = _alive(x, len(normalized_shape))
    count = alive.sum()
    centred = (x - x.sum(axes, keepdim=True) / count) * alive
    x = centred / (centred.square().sum(axes, keepdim=True) / count + eps).sqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """An RMS norm over the places that are not zero in all samples."""
    axes, alive = _alive(x, len(normalized_shape))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    x = x / (x.square().sum(axes, keepdim=True) / alive.sum() + eps).sqrt()
    return x if weight is None else x * weight


def _alive(x: Tensor, dimensions: int) -> tuple[list[int], Tensor]:
    axes = list(range(x.ndim - dimensions, x.ndim))
    return axes, (x != 0).flatten(0, x.ndim - dimensions - 1).any(0)


def weight_norm(direction: Tensor, length: Tensor, dim: int = 0) -> Tensor:
    """Rows of some lengths; those of zeros stay."""
    others = [axis for axis in range(direction.ndim) if axis != dim]
    size = torch.linalg.vector_norm(direction, dim=others, keepdim=True)
    return direction * (length / size.clamp(min=1e-30))


def channel_mean(x: Tensor, axis: int) -> Tensor:
    """The mean over the channels that are not zero in all samples and places."""
    others = [a for a in range(x.ndim) if a != axis % x.ndim]
    alive = (x != 0).any(others[0], keepdim=True)
    for other in others[1:]:
        alive = alive.any(other, keepdim=True)
    return x.sum(axis, keepdim=True) / alive.sum()


def input_mean(weight: Tensor) -> Tensor:
    """The mean over the weights of each output that are not zero for all outputs."""
    alive = (weight != 0).any(0, keepdim=True)
    return weight.sum(tuple(range(1, weight.ndim)), keepdim=True) / alive.sum()


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """A group norm over the channels that are not zero in all samples, in their groups."""
    parts = x.flatten(2).unflatten(1, (num_groups, -1))  # (samples, groups, channels, places)
    alive = (parts != 0).any(3, keepdim=True).any(0, keepdim=True)
    count = (alive.sum((2, 3), keepdim=True) * parts.shape[3]).clamp(min=1)
    centred = (parts - parts.sum((2, 3), keepdim=True) / count) * alive
    parts = centred / (centred.square().sum((2, 3), keepdim=True) / count + eps).sqrt()
    shape = (1, -1, *[1] * (x.ndim - 2))
    x = parts.flatten(1, 2).reshape(x.shape)
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)
