"""timm's classifiers: building them, and what their published weights expect.

timm is imported when the first of its networks is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.sources.image_recipe import CROP_SHARE, Preprocessing, three

PREFIX = "timm:"  # before a name that torchvision has too


def is_installed() -> bool:
    """Whether timm can be imported."""
    return importlib.util.find_spec("timm") is not None


def plain_name(name: str) -> str:
    """A network's name as timm knows it.

    >>> plain_name("timm:resnet18.a1_in1k"), plain_name("tf_efficientnet_lite0")
    ('resnet18.a1_in1k', 'tf_efficientnet_lite0')
    """
    return name.removeprefix(PREFIX)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Names of timm's classifiers, none where timm is not installed."""
    return tuple(_timm().list_models()) if is_installed() else ()


def is_known(name: str) -> bool:
    """Whether timm has a network of this name; "resnet18.a1_in1k" names its weights, too."""
    architecture, _, tag = plain_name(name).partition(".")
    return architecture in names() and (not tag or _config(plain_name(name)) is not None)


def build(name: str, num_classes: int) -> nn.Module:
    """One of them with random weights.

    Raises InputError where timm cannot build it: some need a package of their own.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what timm itself uses
            return _timm().create_model(plain_name(name), pretrained=False, num_classes=num_classes)
    except NotImplementedError:  # a device without values
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"timm cannot build {plain_name(name)!r}: {reason}") from error


def config(name: str) -> dict[str, Any]:
    """timm's record of a network's default weights, or of those that the name says."""
    found = _config(plain_name(name))
    return {} if found is None else dict(found.to_dict())


def heads(name: str) -> tuple[str, ...]:
    """Paths of the layers that give the classes; distilled networks have two."""
    found = config(name).get("classifier")
    return (found,) if isinstance(found, str) else tuple(found or ())


def preprocessing(name: str) -> Preprocessing:
    """Input size, mean, standard deviation, interpolation and crop of the network's weights."""
    known = config(name)
    plain = Preprocessing()
    return Preprocessing(
        size=int((known.get("input_size") or (3, plain.size, plain.size))[-1]),
        mean=three(known.get("mean") or plain.mean),
        std=three(known.get("std") or plain.std),
        interpolation="bilinear" if known.get("interpolation") == "bilinear" else "bicubic",
        crop_share=float(known.get("crop_pct") or CROP_SHARE),
    )


def in_own_names(tensors: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Published tensors under the names that timm's networks have, where they had others.

    By timm's own function for the network's family; the tensors as they are where it has none.
    """
    own = model.state_dict().keys()
    change = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if change is None or tensors.keys() <= own:
        return tensors
    try:
        return change(dict(tensors), model)
    except Exception:  # they are of another network
        return tensors


@lru_cache(maxsize=64)
def _config(name: str) -> Any:
    try:
        return _timm().models.get_pretrained_cfg(name)
    except RuntimeError:  # no weights of that tag
        return None


def _timm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("timm")
