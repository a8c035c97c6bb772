"""torchvision's classifiers by name: building them, their layers, and the order of their steps."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from secateurs.errors import InputError
from secateurs.nets.trace import Trace, trace

# The initialisation of these two draws from SciPy for a minute and warns; their published weights
# expect an input that is normalised once more inside the network.
_EXTRA: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": False, "transform_input": True}
    for name in ("googlenet", "inception_v3")
}
# The default weights of this one are for images of 518 pixels.
_WEIGHTS = {"vit_h_14": "IMAGENET1K_SWAG_LINEAR_V1"}
_ALIASES = {"alexnet": ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")}
_TRACES: dict[tuple[str, tuple[str, ...]], Trace] = {}


@dataclass(frozen=True)
class Layer:
    """A weighted layer: `alias` is what people call it, `path` where it is in the network."""

    alias: str
    path: str


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone expects: a square of `size` pixels, values in 0..1, minus mean, over std."""

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@lru_cache(maxsize=1)
def backbones() -> tuple[str, ...]:
    """Names of the classifiers that `build` knows.

    >>> "alexnet" in backbones() and "resnet18" in backbones()
    True
    """
    return tuple(models.list_models(module=models))


def check_name(name: str) -> None:
    """Raise InputError, with names that are near, unless `name` is a known backbone.

    >>> check_name("alexnett")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: unknown backbone 'alexnett'; did you mean alexnet?
    """
    if name in backbones():
        return
    near = difflib.get_close_matches(name.lower(), backbones(), n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else "torchvision's classifiers are known"
    raise InputError(f"unknown backbone {name!r}; {hint}")


def build(name: str, num_classes: int) -> nn.Module:
    """One of torchvision's classifiers with random weights and a head of `num_classes` outputs.

    Raises InputError for an unknown name or fewer than two classes.

    >>> build("squeezenet1_1", 5)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    """
    check_name(name)
    if num_classes < 2:
        raise InputError(f"{name} needs at least 2 classes, got {num_classes}")
    return models.get_model(name, weights=None, num_classes=num_classes, **_EXTRA.get(name, {}))


def weights_entry(name: str) -> Any:
    """torchvision's record of a backbone's published weights (`url`, `transforms`), or None."""
    check_name(name)
    known = models.get_model_weights(name)
    if name in _WEIGHTS:
        return known[_WEIGHTS[name]]
    return getattr(known, "DEFAULT", None)


@lru_cache
def preprocessing(name: str) -> Preprocessing:
    """Input size, mean and standard deviation that a backbone's published weights were made with.

    >>> preprocessing("inception_v3").size
    299
    """
    entry = weights_entry(name)
    if entry is None:
        return Preprocessing()
    published = entry.transforms()
    return Preprocessing(
        size=int(published.crop_size[0]), mean=tuple(published.mean), std=tuple(published.std)
    )


def trace_of(model: nn.Module, name: str) -> Trace:
    """The trace of a model that was built as `name`; raises InputError if it is another network.

    >>> trace_of(build("alexnet", 3), "resnet18")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: the model given is a AlexNet, not a resnet18
    """
    check_name(name)
    key = (name, tuple(path for path, _ in model.named_modules()))
    if key not in _TRACES:
        if type(model).__name__.lower() != _class_name(name):
            raise InputError(f"the model given is a {type(model).__name__}, not a {name}")
        _TRACES[key] = trace(model, size=preprocessing(name).size)
    return _TRACES[key]


@lru_cache
def _class_name(name: str) -> str:
    # A builder's return annotation is the class it builds, or its name.
    built = models.get_model_builder(name).__annotations__["return"]
    return (built if isinstance(built, str) else built.__name__).lower()


def layers(model: nn.Module, name: str) -> tuple[Layer, ...]:
    """The weighted layers (convolution and linear) in the order they run; the head is the last.

    >>> [layer.alias for layer in layers(build("alexnet", 3), "alexnet")][-3:]
    ['fc6', 'fc7', 'fc8']
    """
    paths = trace_of(model, name).weighted
    return tuple(map(Layer, _ALIASES.get(name, paths), paths))


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
