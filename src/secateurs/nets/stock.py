"""The networks of torchvision and timm by name, as these build them."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.errors import InputError
from secateurs.nets.sources import timm_models, torchvision_models
from secateurs.nets.sources.image_recipe import Preprocessing
from secateurs.nets.trace import Trace, skeleton, trace

SEVERAL = "SeveralDepths"  # the class of a network whose head reads several depths
EARLIER = "+"  # before each earlier depth that a head reads, as in mobilenet_v2+features.13
_TRACES: dict[tuple[str, tuple[str, ...]], Trace] = {}


def backbones() -> tuple[str, ...]:
    """Names of torchvision's classifiers; `build` knows timm's, too (see `timm_models.names`).

    >>> "alexnet" in backbones() and "resnet18" in backbones()
    True
    """
    return torchvision_models.names()


def stock_name(name: str) -> str:
    """A backbone's name without the earlier depths that its head reads.

    >>> stock_name("mobilenet_v2+features.13"), stock_name("alexnet")
    ('mobilenet_v2', 'alexnet')
    """
    return name.partition(EARLIER)[0]


def earlier_depths(name: str) -> tuple[str, ...]:
    """The modules whose outputs a backbone's head reads beside the last features, in order.

    >>> earlier_depths("mobilenet_v2+features.7+features.13"), earlier_depths("alexnet")
    (('features.7', 'features.13'), ())
    """
    return tuple(name.split(EARLIER)[1:])


def source_of(name: str) -> str:
    """Where a backbone comes from: "torchvision", or "timm" for what only timm has.

    "timm:NAME" is timm's also where torchvision has a network of that name. Raises InputError as
    `check_name` does.

    >>> source_of("resnet18")
    'torchvision'
    """
    check_name(name)
    return "torchvision" if stock_name(name) in torchvision_models.names() else "timm"


def check_name(name: str) -> None:
    """Raise InputError, with names that are near, unless `name` is a known backbone.

    The earlier depths must be modules of it, each once. Whether a head can read them is for `build`
    to say.

    >>> check_name("alexnett")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: unknown backbone 'alexnett'; did you mean alexnet?
    """
    paths, name = earlier_depths(name), stock_name(name)
    _check_stock(name)
    if not paths:
        return
    network = bare_stock(name, 2)
    known = [path for path, _ in network.named_modules() if path]
    for path in paths:
        if path not in known:
            near = difflib.get_close_matches(path[:200], known, n=3, cutoff=0.5)
            parts = ", ".join(part for part, _ in network.named_children())
            hint = f"did you mean {' or '.join(near)}?" if near else f"it is made of {parts}"
            raise InputError(f"{name} has no module {reprlib.repr(path)} to read; {hint}")
        if paths.count(path) > 1:
            raise InputError(f"{name}: {path} is named more than once")


def _check_stock(name: str) -> None:
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


def build_stock(name: str, num_classes: int) -> nn.Module:
    """A classifier with random weights and a head of `num_classes` outputs, as its source has it.

    `name` is torchvision's or timm's. Raises InputError for an unknown name or fewer than two
    classes.

    >>> build_stock("squeezenet1_1", 5)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 5])
    """
    source = source_of(name)
    if num_classes < 2:
        raise InputError(f"{name} needs at least 2 classes, got {num_classes}")
    if source == "timm":
        return timm_models.build(name, num_classes)
    return torchvision_models.build(name, num_classes)


@lru_cache(maxsize=8)
def bare_stock(name: str, num_classes: int) -> nn.Module:
    """The network with shapes and no values, in eval mode; shared, so never to be changed."""
    try:
        with torch.device("meta"):
            return build_stock(name, num_classes).eval()
    except (NotImplementedError, InputError, RuntimeError):  # it computes widths with tensors
        with _ParametersOnMeta():
            return skeleton(build_stock(name, num_classes))


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
    source, name = source_of(name), stock_name(name)
    if source == "timm":
        return timm_models.preprocessing(name)
    return torchvision_models.preprocessing(name)


def trace_of(model: nn.Module, name: str) -> Trace:
    """The trace of a model that was built as `name`; raises InputError if it is another network.

    >>> trace_of(build_stock("alexnet", 3), "resnet18")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: the model given is a AlexNet, not a resnet18
    """
    key = (name, tuple(path for path, _ in model.named_modules()))
    if key not in _TRACES:
        own = type(model).__name__
        if own.lower() != _class_name(name):
            raise InputError(f"the model given is a {own}, not a {name}")
        _TRACES[key] = trace(model, size=preprocessing(name).size)
    return _TRACES[key]


@lru_cache
def _class_name(name: str) -> str:
    """The class of a backbone, in lower case."""
    if earlier_depths(name):
        return SEVERAL.lower()
    if source_of(name) == "torchvision":
        return torchvision_models.class_name(name)
    return type(bare_stock(name, 2)).__name__.lower()


class InputTransform(nn.Module):
    """GoogLeNet's and Inception's own first step: from ImageNet's normalisation to theirs."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 3, h, w), normalised with ImageNet's mean and std, to the range -1..1."""
        normal = Preprocessing()
        channels = [
            x[:, i : i + 1] * (normal.std[i] / 0.5) + (normal.mean[i] - 0.5) / 0.5 for i in range(3)
        ]
        return torch.cat(channels, 1)
