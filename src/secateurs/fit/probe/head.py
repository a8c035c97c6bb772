"""The probe's classifier as a network's last layer, to start fine-tuning from (LP-FT)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.nets.backbones import num_heads, trace_of
from secateurs.nets.several_depths import both_depths
from secateurs.nets.trace import eval_mode

NUM_SHIFT = 128  # images from which the shift of a convolution head is found
SAME = 1e-4  # a standard deviation, relative to 1 + |mean|, below which it is not divided by
MARGIN = 0.1  # of the range of the scores, added to the shift


@dataclass(frozen=True)
class Head:
    """A linear head for what the network's last layer receives.

    The logits are (`weight` x + `bias`) / `temperature`; `weight` (classes, inputs) and `bias`
    (classes,) in float64. `temperature` makes the softmax of the leave-group-out scores as likely
    as one number can. `shift` is added to all logits alike: it keeps a ReLU behind a convolution
    head from cutting them off, and changes no softmax. For a network that reads several depths
    `center` and `scale` (features,) normalise the statistics of the earlier ones, the last of x.
    """

    weight: Tensor
    bias: Tensor
    temperature: float
    shift: float = 0.0
    center: Tensor | None = None
    scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All of it as float64 tensors by name; `from_tensors` makes the head of them."""
        found = {"weight": self.weight, "bias": self.bias}
        found["numbers"] = torch.tensor([self.temperature, self.shift], dtype=torch.float64)
        if self.center is not None and self.scale is not None:
            found |= {"center": self.center, "scale": self.scale}
        return {name: tensor.double().contiguous() for name, tensor in found.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Head:
        """The head that `tensors` was of."""
        temperature, shift = tensors["numbers"].tolist()
        return cls(
            *(tensors["weight"], tensors["bias"], temperature, shift),
            *(tensors.get("center"), tensors.get("scale")),
        )

    def digest(self) -> str:
        """64 hexadecimal digits over all of it."""
        digest = hashlib.sha256()
        for tensor in self.tensors().values():
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.double().contiguous().numpy().tobytes())
        return digest.hexdigest()


def start_head(model: nn.Module, name: str, head: Head) -> nn.Module:
    """A copy of a network whose last layer is `head`.

    The last layer may be linear, or a convolution of kernel 1 before the pooling (SqueezeNet);
    behind the latter comes a ReLU, and the logits are exact where `head.shift` keeps all of it
    above zero, as it does on the images that it was found on. Raises InputError for another kind of
    layer, or when the shapes do not agree.
    """
    path, layer = _last(model, name)
    weight = (head.weight / head.temperature).view(len(head.weight), -1)
    bias = head.bias / head.temperature + head.shift
    if layer.weight.shape[:2] != weight.shape:
        raise InputError(
            f"{name}: the probe's head is {tuple(weight.shape)}, {path} needs "
            f"{tuple(layer.weight.shape[:2])}"
        )
    if layer.bias is None:
        raise InputError(f"{name}: {path} has no bias, so that it cannot start from a probe")
    read = [both.norm.num_features for both in both_depths(model)]
    if read and (head.center is None or head.scale is None or head.scale.numel() != sum(read)):
        raise InputError(f"{name}: the probe's head is not of a network that reads these depths")
    started = copy.deepcopy(model)
    if read and head.center is not None and head.scale is not None:
        parts = zip(head.center.split(read), head.scale.split(read), strict=True)
        for both, (center, scale) in zip(both_depths(started), parts, strict=True):
            both.normalise(center, scale)
    fresh = started.get_submodule(path)
    assert isinstance(fresh, nn.Linear | nn.Conv2d)
    with torch.no_grad():
        fresh.weight.copy_(weight.view_as(fresh.weight))
        fresh.bias.copy_(bias)  # type: ignore[union-attr]
    return started


def can_start(model: nn.Module, name: str) -> bool:
    """Whether a network's last layer is one that `start_head` can fill.

    >>> from secateurs.nets.backbones import build
    >>> can_start(build("squeezenet1_1", 3), "squeezenet1_1")
    True
    """
    try:
        _, layer = _last(model, name)
    except InputError:
        return False
    return layer.bias is not None


def _last(model: nn.Module, name: str) -> tuple[str, nn.Linear | nn.Conv2d]:
    if num_heads(model, name) > 1:
        raise InputError(f"{name} has {num_heads(model, name)} heads, and a probe has one")
    path = trace_of(model, name).weighted[-1]
    layer = model.get_submodule(path)
    if isinstance(layer, nn.Linear):
        return path, layer
    pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    if not pointwise:
        raise InputError(f"{name}: {path} is neither linear nor a convolution of kernel 1")
    assert isinstance(layer, nn.Conv2d)
    return path, layer


def normalised(head: Head, features: Tensor) -> Head:
    """The same classifier with normalised statistics of the earlier depths.

    `head` acts on raw features; `features` (views, images, features) are those of the earlier
    depths, which are the last that it reads.

    >>> raw = Head(torch.ones(2, 3), torch.zeros(2), 1.0)
    >>> normalised(raw, torch.tensor([[[1.0, 2.0], [3.0, 2.0]]])).bias
    tensor([4., 4.], dtype=torch.float64)
    """
    scale, center = torch.std_mean(features.double(), (0, 1), correction=0)
    scale = torch.where(scale > SAME * (center.abs() + 1), scale, 1.0)
    num = features.shape[2]
    weight = head.weight.double().clone()
    own = weight[:, -num:]
    bias = head.bias.double() + own @ center
    own *= scale
    return replace(head, weight=weight, bias=bias, center=center, scale=scale)


def shifted(
    model: nn.Module, name: str, head: Head, images: Images, *, device: torch.device
) -> Head:
    """The head with the shift that a ReLU behind it needs; the same head for a linear last layer.

    Exact on the first `NUM_SHIFT` of the images, with a margin for others.
    """
    path, layer = _last(model, name)
    if isinstance(layer, nn.Linear):
        return head
    started = start_head(model, name, head)
    low, high = torch.inf, -torch.inf

    def watch(module: nn.Module, args: object, result: Tensor) -> None:
        nonlocal low, high
        low, high = min(low, float(result.amin())), max(high, float(result.amax()))

    hook = started.get_submodule(path).register_forward_hook(watch)
    num = min(len(images), NUM_SHIFT)
    try:
        with eval_mode(started), torch.inference_mode():
            for first in range(0, num, 32):
                started(images.eval_views(slice(first, min(first + 32, num)), device))
    finally:
        hook.remove()
    shift = max(0.0, -low) + MARGIN * (high - low)
    return replace(head, shift=head.shift + shift)
