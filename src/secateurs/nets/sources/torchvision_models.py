"""torchvision's classifiers: building them, and what their published weights expect."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode

from secateurs.nets.sources.image_recipe import Preprocessing, three

# The initialisation of these two draws from SciPy for a minute and warns; their published weights
# expect an input that is normalised once more inside the network.
_EXTRA: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": False, "transform_input": True}
    for name in ("googlenet", "inception_v3")
}
# The default weights of this one are for images of 518 pixels.
_WEIGHTS = {"vit_h_14": "IMAGENET1K_SWAG_LINEAR_V1"}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Names of torchvision's classifiers."""
    return tuple(models.list_models(module=models))


def build(name: str, num_classes: int) -> nn.Module:
    """One of them with random weights."""
    return models.get_model(name, weights=None, num_classes=num_classes, **_EXTRA.get(name, {}))


def entries(name: str) -> tuple[Any, ...]:
    """torchvision's records of a network's published weights, the one that it recommends first.

    Only those for the same preprocessing but for the crop: other files of the same network are for
    larger images.
    """
    known = models.get_model_weights(name)
    best = known[_WEIGHTS[name]] if name in _WEIGHTS else getattr(known, "DEFAULT", None)
    if best is None:
        return ()
    size = best.transforms().crop_size[0]
    others = [one for one in known if one != best and one.transforms().crop_size[0] == size]
    return (best, *others)


def preprocessing(name: str) -> Preprocessing:
    """Input size, mean, standard deviation, interpolation and crop of the recommended weights."""
    found = entries(name)
    if not found:
        return Preprocessing()
    published = found[0].transforms()
    size = int(published.crop_size[0])
    bicubic = published.interpolation == InterpolationMode.BICUBIC
    return Preprocessing(
        size=size,
        mean=three(published.mean),
        std=three(published.std),
        interpolation="bicubic" if bicubic else "bilinear",
        crop_share=size / int(published.resize_size[0]),
    )


@lru_cache
def class_name(name: str) -> str:
    """The class that a name builds, or its name, in small letters."""
    # A builder's return annotation is the class it builds, or its name.
    built = models.get_model_builder(name).__annotations__["return"]
    return (built if isinstance(built, str) else built.__name__).lower()
