"""Backbones by name: building them, their layers, and the order of their steps."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.layers import BATCH_NORMS
from secateurs.nets.several_depths import several_depths, stock_path
from secateurs.nets.sources import timm_models
from secateurs.nets.sources.image_recipe import Preprocessing
from secateurs.nets.stock import (
    backbones,
    bare_stock,
    build_stock,
    check_name,
    earlier_depths,
    preprocessing,
    source_of,
    stock_name,
    trace_of,
    weights_entry,
)

__all__ = [
    "Layer",
    "Preprocessing",
    "backbones",
    "bare",
    "build",
    "check_name",
    "check_size",
    "find_layer",
    "has_batch_norms",
    "layers",
    "num_heads",
    "preprocessing",
    "source_of",
    "trace_of",
    "weights_entry",
]

_ALIASES = {"alexnet": ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")}


@dataclass(frozen=True)
class Layer:
    """A weighted layer: `alias` is what people call it, `path` where it is in the network."""

    alias: str
    path: str


def build(name: str, num_classes: int) -> nn.Module:
    """A classifier with random weights and a head of `num_classes` outputs.

    `name` is torchvision's or timm's. With "+PATH" behind it, once or more, it is a network whose
    linear head also reads the output of the module at PATH (see `several_depths`). Raises
    InputError for an unknown name, a module that a head cannot read, or fewer than two classes.

    >>> build("squeezenet1_1", 5)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    >>> build("squeezenet1_1+features.7", 5)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    """
    paths = earlier_depths(name)
    if not paths:
        return build_stock(name, num_classes)
    check_name(name)
    stock = stock_name(name)
    return several_depths(build_stock(stock, num_classes), stock, paths, num_classes)


@lru_cache(maxsize=8)
def bare(name: str, num_classes: int) -> nn.Module:
    """The network with shapes and no values, in eval mode; shared, so never to be changed."""
    paths = earlier_depths(name)
    if not paths:
        return bare_stock(name, num_classes)
    stock = stock_name(name)
    return several_depths(bare_stock(stock, num_classes), stock, paths, num_classes).eval()


def has_batch_norms(name: str, num_classes: int) -> bool:
    """Whether a backbone has a batch norm.

    >>> has_batch_norms("mobilenet_v2", 3), has_batch_norms("squeezenet1_1", 3)
    (True, False)
    """
    return any(isinstance(module, BATCH_NORMS) for module in bare(name, num_classes).modules())


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


def layers(model: nn.Module, name: str) -> tuple[Layer, ...]:
    """The weighted layers (convolution and linear) in the order they run; the head is the last.

    >>> [layer.alias for layer in layers(build("alexnet", 3), "alexnet")][-3:]
    ['fc6', 'fc7', 'fc8']
    """
    paths = trace_of(model, name).weighted
    stock = tuple(stock_path(path, model) for path in paths)
    return tuple(map(Layer, _ALIASES.get(stock_name(name), stock), paths))


def num_heads(model: nn.Module, name: str) -> int:
    """How many of the last layers give the classes: one, but two in distilled networks.

    >>> num_heads(build("alexnet", 3), "alexnet")
    1
    """
    if source_of(name) == "torchvision" or earlier_depths(name):
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
