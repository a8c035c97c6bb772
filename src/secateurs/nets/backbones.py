"""Backbones by name: building them, their layers, and the order of their steps."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.errors import InputError
from secateurs.nets.layers import BATCH_NORMS
from secateurs.nets.sources import timm_models, torchvision_models
from secateurs.nets.sources.image_recipe import Preprocessing
from secateurs.nets.trace import Trace, skeleton, trace

__all__ = ["Layer", "Preprocessing", "build", "layers", "preprocessing"]

_ALIASES = {"alexnet": ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")}
_TRACES: dict[tuple[str, tuple[str, ...]], Trace] = {}


@dataclass(frozen=True)
class Layer:
    """A weighted layer: `alias` is what people call it, `path` where it is in the network."""

    alias: str
    path: str


def backbones() -> tuple[str, ...]:
    """Names of torchvision's classifiers; `build` knows timm's, too (see `timm_models.names`).

    >>> "alexnet" in backbones() and "resnet18" in backbones()
    True
    """
    return torchvision_models.names()


def source_of(name: str) -> str:
    """Where a backbone comes from: "torchvision", or "timm" for what only timm has.

    "timm:NAME" is timm's also where torchvision has a network of that name. Raises InputError as
    `check_name` does.

    >>> source_of("resnet18")
    'torchvision'
    """
    check_name(name)
    return "torchvision" if name in torchvision_models.names() else "timm"


def check_name(name: str) -> None:
    """Raise InputError, with names that are near, unless `name` is a known backbone.

    >>> check_name("alexnett")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: unknown backbone 'alexnett'; did you mean alexnet?
    """
    if name in torchvision_models.names():
        return
    if timm_models.is_known(name):
        return
    plain = timm_models.plain_name(name).lower()
    wanted, own = plain.partition(".")[0], name.startswith(timm_models.PREFIX)
    if wanted in timm_models.names():
        tag = plain.partition(".")[2]
        raise InputError(f"unknown backbone {name!r}: {wanted} has no weights named {tag!r}")
    known = [*(() if own else torchvision_models.names()), *timm_models.names()]
    near = difflib.get_close_matches(wanted, list(dict.fromkeys(known)), n=3, cutoff=0.7)
    start = timm_models.PREFIX if own else ""
    if near:
        hint = f"did you mean {' or '.join(start + one for one in near)}?"
    elif timm_models.is_installed():
        hint = "torchvision's classifiers and timm's are known"
    else:
        hint = "torchvision's classifiers are known, and timm's once it is installed"
    raise InputError(f"unknown backbone {name!r}; {hint}")


def build(name: str, num_classes: int) -> nn.Module:
    """A classifier with random weights and a head of `num_classes` outputs.

    `name` is torchvision's or timm's. Raises InputError for an unknown name or fewer than two
    classes.

    >>> build("squeezenet1_1", 5)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    """
    source = source_of(name)
    if num_classes < 2:
        raise InputError(f"{name} needs at least 2 classes, got {num_classes}")
    if source == "timm":
        return timm_models.build(name, num_classes)
    return torchvision_models.build(name, num_classes)


@lru_cache(maxsize=8)
def bare(name: str, num_classes: int) -> nn.Module:
    """The network with shapes and no values, in eval mode; shared, so never to be changed."""
    try:
        with torch.device("meta"):
            return build(name, num_classes).eval()
    except (NotImplementedError, InputError, RuntimeError):  # it computes widths with tensors
        with _ParametersOnMeta():
            return skeleton(build(name, num_classes))


def has_batch_norms(name: str, num_classes: int) -> bool:
    """Whether a backbone has a batch norm.

    >>> has_batch_norms("mobilenet_v2", 3), has_batch_norms("squeezenet1_1", 3)
    (True, False)
    """
    return any(isinstance(module, BATCH_NORMS) for module in bare(name, num_classes).modules())


class _ParametersOnMeta(TorchFunctionMode):
    """Parameters without values, and all other tensors with theirs; one network has 2.6 GB."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        return func(*args, **(named | {"device": "meta"} if func is torch.empty else named))


def weights_entry(name: str) -> Any:
    """torchvision's record of a backbone's published weights (`url`, `transforms`), or None."""
    if source_of(name) == "timm":
        return None
    return next(iter(torchvision_models.entries(name)), None)


@lru_cache
def preprocessing(name: str) -> Preprocessing:
    """What a backbone's published weights were made with: size, mean, standard deviation, crop.

    >>> preprocessing("inception_v3").size
    299
    """
    if source_of(name) == "timm":
        return timm_models.preprocessing(name)
    return torchvision_models.preprocessing(name)


def check_size(name: str, size: int) -> None:
    """Raise InputError unless a backbone takes images of `size` pixels.

    >>> check_size("alexnet", 224)
    >>> check_size("squeezenet1_1", 8)
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: squeezenet1_1 does not take images of 8 pixels; its own size is 224
    """
    own = preprocessing(name).size
    if size == own:
        return
    network = bare(name, 2)
    try:
        with torch.no_grad():
            network(torch.empty(2, 3, size, size, device="meta"))
    except Exception:  # whatever a network makes of an image that is too small
        raise InputError(
            f"{name} does not take images of {size} pixels; its own size is {own}"
        ) from None


def trace_of(model: nn.Module, name: str) -> Trace:
    """The trace of a model that was built as `name`; raises InputError if it is another network.

    >>> trace_of(build("alexnet", 3), "resnet18")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: the model given is a AlexNet, not a resnet18
    """
    source = source_of(name)
    key = (name, tuple(path for path, _ in model.named_modules()))
    if key not in _TRACES:
        own = type(model).__name__
        wanted = _class_name(name) if source == "timm" else torchvision_models.class_name(name)
        if own.lower() != wanted:
            raise InputError(f"the model given is a {own}, not a {name}")
        _TRACES[key] = trace(model, size=preprocessing(name).size)
    return _TRACES[key]


@lru_cache
def _class_name(name: str) -> str:
    return type(bare(name, 2)).__name__.lower()


def layers(model: nn.Module, name: str) -> tuple[Layer, ...]:
    """The weighted layers (convolution and linear) in the order they run; the head is the last.

    >>> [layer.alias for layer in layers(build("alexnet", 3), "alexnet")][-3:]
    ['fc6', 'fc7', 'fc8']
    """
    paths = trace_of(model, name).weighted
    return tuple(map(Layer, _ALIASES.get(name, paths), paths))


def num_heads(model: nn.Module, name: str) -> int:
    """How many of the last layers give the classes: one, but two in distilled networks.

    >>> num_heads(build("alexnet", 3), "alexnet")
    1
    """
    if source_of(name) == "torchvision":
        return 1
    known = set(timm_models.heads(name))
    count = 0
    for path in reversed(trace_of(model, name).weighted):
        if path not in known:
            break
        count += 1
    return max(count, 1)


def find_layer(model: nn.Module, name: str, text: str) -> Layer:
    """The weighted layer with an alias or a path; raises InputError that lists the valid names.

    >>> find_layer(build("alexnet", 3), "alexnet", "fc7").path
    'classifier.4'
    """
    known = layers(model, name)
    for layer in known:
        if text in (layer.alias, layer.path):
            return layer
    aliases = [layer.alias for layer in known]
    near = difflib.get_close_matches(text, aliases, n=8, cutoff=0.4)
    choice = aliases if len(aliases) <= 20 else near or [*aliases[:5], "...", *aliases[-2:]]
    raise InputError(f"{name} has no weighted layer {text!r}; it has {', '.join(choice)}")


class InputTransform(nn.Module):
    """GoogLeNet's and Inception's own first step: from ImageNet's normalisation to theirs."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, h, w), normalised with ImageNet's mean and std, to the range -1..1."""
        normal = Preprocessing()
        channels = [
            x[:, i : i + 1] * (normal.std[i] / 0.5) + (normal.mean[i] - 0.5) / 0.5 for i in range(3)
        ]
        return torch.cat(channels, 1)
