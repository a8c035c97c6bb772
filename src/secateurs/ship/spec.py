"""The recipe of a shipped model: backbone, classes, preprocessing, and how it was cut."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from secateurs.data.images.resolution import CROP_SHARE, Interpolation, Resize, eval_pixels
from secateurs.data.names import printable
from secateurs.data.splits.split_record import SplitRecord, parse_split_record
from secateurs.errors import InputError
from secateurs.nets import backbones
from secateurs.nets.attention import is_open, open_attention
from secateurs.nets.backbones import check_name, check_size, preprocessing
from secateurs.prune.surgery.attributes import changed_attributes
from secateurs.ship.widths import tensors_of, widths_of, with_shapes, with_widths

FORMAT = "secateurs-model"
VERSION = 1

Attention = Literal["stock", "open"]
Widths = dict[str, dict[str, int]]
Shapes = dict[str, tuple[int, ...]]
Attributes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ImageInput:
    """How an image becomes a network's input.

    A square of `size` pixels: "straight" resizes the whole image to it, "crop" resizes the short
    side to `size` / `crop_share` and takes the centre. Then values in 0..1, minus `mean`, over
    `std`.
    """

    size: int
    resize: Resize
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"
    crop_share: float = CROP_SHARE

    @classmethod
    def of(
        cls, backbone: str, *, resize: Resize = "straight", size: int | None = None
    ) -> ImageInput:
        """What a backbone's published weights expect, by default at its own input size.

        Raises InputError for a size that the network does not take.

        >>> ImageInput.of("alexnet").size
        224
        """
        own = preprocessing(backbone)
        if size is not None:
            check_size(backbone, size)
        return cls(size or own.size, resize, own.mean, own.std, own.interpolation, own.crop_share)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """What the network sees of an image (size, size, 3), before it is normalised."""
        return eval_pixels(
            image,
            crop=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            crop_share=self.crop_share,
        )

    def unusual(self) -> dict[str, Any]:
        """What decides the pixels beside size and way, where it is not what 0.1.0 always did.

        >>> ImageInput.of("alexnet").unusual(), ImageInput.of("efficientnet_b0").unusual()
        ({}, {'interpolation': 'bicubic'})
        """
        found: dict[str, Any] = {}
        if self.interpolation != "bilinear":
            found["interpolation"] = self.interpolation
        if self.resize == "crop" and self.crop_share != CROP_SHARE:
            found["crop_share"] = self.crop_share
        return found

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return {
            "size": self.size,
            "resize": self.resize,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_share": self.crop_share,
        }


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed, beside the tensors, to build a model again.

    `widths` holds, for each layer or norm that differs from the stock network, its "in" and "out"
    widths (and "groups" of a grouped convolution); `shapes` the shape of every other tensor that
    differs, such as a position embedding; `attributes` numbers that modules keep of their widths,
    such as `num_heads`, where they differ; `kept` the indices of the stock network's units that a
    layer still has; `extra` any plain data to keep with the model. `attention` is "open" where the
    network's attention was replaced by one whose heads can be cut (see `nets.attention`). `split`
    says which images it was trained, chosen and tested on; None where that is not known.
    """

    backbone: str
    classes: tuple[str, ...]
    preprocessing: ImageInput
    widths: Widths = field(default_factory=dict)
    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    attention: Attention = "stock"
    split: SplitRecord | None = None
    shapes: Shapes = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return {
            "backbone": self.backbone,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_json(),
            "widths": self.widths,
            "kept": {path: list(units) for path, units in self.kept.items()},
            "extra": self.extra,
            **({"shapes": {k: list(v) for k, v in self.shapes.items()}} if self.shapes else {}),
            **({"attributes": _listed(self.attributes)} if self.attributes else {}),
            **({} if self.attention == "stock" else {"attention": self.attention}),
            **({} if self.split is None else {"split": self.split.to_json()}),
        }


def describe(
    model: nn.Module,
    backbone: str,
    classes: Sequence[str],
    image_input: ImageInput,
    *,
    kept: Mapping[str, Sequence[int]] | None = None,
    extra: Mapping[str, Any] | None = None,
    split: SplitRecord | None = None,
) -> ModelSpec:
    """The recipe of a model at hand: its widths are found by comparing it with the stock network.

    Raises InputError when it is not that network with other widths.

    >>> from secateurs.nets.backbones import build
    >>> spec = describe(build("resnet18", 2), "resnet18", ["a", "b"], ImageInput.of("resnet18"))
    >>> spec.widths
    {}
    """
    attention: Attention = "open" if is_open(model) else "stock"
    stock = bare(backbone, len(classes), attention)
    modules, given = dict(stock.named_modules()), dict(model.named_modules())
    if list(modules) != list(given):
        odd = next(iter(set(modules).symmetric_difference(given)), "their order")
        raise InputError(f"the model given is not a {backbone}: its modules differ ({odd})")
    found: Widths = {}
    for path, module in given.items():
        if type(module) is not type(modules[path]):
            raise InputError(
                f"the model given is not a {backbone}: {path} is a {type(module).__name__}"
            )
        width = widths_of(module)
        if width and width != widths_of(modules[path]):
            found[path] = width
    resized = with_widths(stock, found)
    expected = tensors_of(resized)
    shapes = {
        key: tuple(value.shape)
        for key, value in tensors_of(model).items()
        if key in expected and value.shape != expected[key].shape
    }
    attributes = changed_attributes(with_shapes(resized, shapes), model)
    units = {path: tuple(int(u) for u in indices) for path, indices in (kept or {}).items()}
    return ModelSpec(
        backbone,
        tuple(classes),
        image_input,
        found,
        units,
        dict(extra or {}),
        attention,
        split,
        shapes,
        attributes,
    )


def bare(backbone: str, num_classes: int, attention: Attention = "stock") -> nn.Module:
    """The stock network with shapes and no values; shared, so never to be changed."""
    if attention == "open":
        return _bare_opened(backbone, num_classes)
    return backbones.bare(backbone, num_classes)


@lru_cache(maxsize=4)
def _bare_opened(backbone: str, num_classes: int) -> nn.Module:
    return open_attention(backbones.bare(backbone, num_classes))


def parse_spec(data: Any, *, where: str) -> ModelSpec:
    """A recipe out of untrusted JSON; raises InputError that names `where` and the field."""
    image = _get(data, "preprocessing", dict, where)
    field_of = f"{where}: preprocessing"
    size, resize = _get(image, "size", int, field_of), _get(image, "resize", str, field_of)
    if not 1 <= size <= 4096:
        raise InputError(f"{field_of}.size: expected 1..4096 pixels, got {size}")
    if resize not in ("straight", "crop"):
        raise InputError(f"{field_of}.resize: expected 'straight' or 'crop', got {resize!r}")
    mean, std = (
        _three(_get(image, key, list, field_of), f"{field_of}.{key}") for key in ("mean", "std")
    )
    interpolation = image.get("interpolation", "bilinear")  # models of 0.1.0 do not say
    if interpolation not in ("bilinear", "bicubic"):
        raise InputError(
            f"{field_of}.interpolation: expected 'bilinear' or 'bicubic', got "
            f"{shown_value(interpolation)}"
        )
    share = image.get("crop_share", CROP_SHARE)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.1 <= share <= 1:
        raise InputError(f"{field_of}.crop_share: expected 0.1..1, got {shown_value(share)}")
    if min(std) <= 0:
        raise InputError(f"{field_of}.std: expected positive numbers, got {list(std)}")
    classes = _get(data, "classes", list, where)
    if len(classes) < 2 or not all(isinstance(c, str) for c in classes):
        raise InputError(f"{where}: classes: expected at least 2 names")
    if len(set(classes)) < len(classes):
        raise InputError(f"{where}: classes: a name stands in it twice")
    backbone = _get(data, "backbone", str, where)
    try:
        check_name(backbone)
    except InputError as error:
        raise InputError(f"{where}: backbone: {shown_name(str(error))}") from None
    attention, split = data.get("attention", "stock"), data.get("split")
    if attention not in ("stock", "open"):
        raise InputError(
            f"{where}: attention: expected 'stock' or 'open', got {shown_value(attention)}"
        )
    return ModelSpec(
        backbone,
        tuple(classes),
        ImageInput(size, resize, mean, std, interpolation, float(share)),
        _entries(_get(data, "widths", dict, where), _width, f"{where}: widths"),
        _entries(_get(data, "kept", dict, where), _units, f"{where}: kept"),
        _get(data, "extra", dict, where),
        attention,
        None if split is None else parse_split_record(split, where=f"{where}: split"),
        _entries(_optional(data, "shapes", where), _sizes, f"{where}: shapes"),
        _entries(_optional(data, "attributes", where), _numbers, f"{where}: attributes"),
    )


def _get(data: Any, key: str, kind: type, where: str) -> Any:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        dot = "." if ": " in where else ": "
        raise InputError(f"{where}{dot}{key}: expected {_KINDS[kind]}, got {shown_value(value)}")
    return value


def _optional(data: Any, key: str, where: str) -> dict[str, Any]:
    """An object that models without such parts, and those of 0.1.0, do not have."""
    return _get(data, key, dict, where) if key in data else {}


_KINDS = {dict: "an object", list: "a list", int: "a whole number", str: "a text"}


def shown_value(value: Any) -> str:
    """A value out of untrusted data in at most 40 characters."""
    return "nothing" if value is None else printable(reprlib.repr(value))[:40]


def _three(values: list[Any], where: str) -> tuple[float, float, float]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) != 3 or len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InputError(f"{where}: expected 3 finite numbers, got {shown_value(values)}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _entries(data: dict[str, Any], parse: Callable[[Any], Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in data.items():
        try:
            found[path] = parse(value)
        except ValueError as error:
            raise InputError(f"{where}.{shown_name(path)}: {error}") from None
    return found


def shown_name(name: str) -> str:
    """A name out of untrusted data, short enough and plain enough for a message of one line."""
    plain = printable(name)
    return plain if len(plain) <= 80 else f"{plain[:77]}..."


def _width(value: Any) -> dict[str, int]:
    keys = set(value) if isinstance(value, dict) else set[str]()
    if not {"in", "out"} <= keys <= {"in", "out", "groups"}:
        raise ValueError(f'expected {{"in": ..., "out": ...}}, got {shown_value(value)}')
    for number in value.values():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"expected whole numbers of at least 1, got {shown_value(value)}")
    if value["in"] % value.get("groups", 1) or value["out"] % value.get("groups", 1):
        raise ValueError(f"groups must divide both widths, got {shown_value(value)}")
    return dict(value)


def _units(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(unit) is int and unit >= 0 for unit in value)
    if not whole or value != sorted(set(value)):
        raise ValueError(f"expected unit numbers in rising order, got {shown_value(value)}")
    return tuple(value)


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_is_count(size) for size in value):
        raise ValueError(f"expected whole numbers of at least 1, got {shown_value(value)}")
    return tuple(value)


def _numbers(value: Any) -> dict[str, Any]:
    """Numbers by name; a list becomes a tuple, as modules have it."""
    found: dict[str, Any] = {}
    for name, number in (value if isinstance(value, dict) else {"": None}).items():
        parts = number if isinstance(number, list) and number else [number]
        if not name.isidentifier() or not all(_is_count(part) for part in parts):
            raise ValueError(f"expected whole numbers by name, got {shown_value(value)}")
        found[name] = tuple(number) if isinstance(number, list) else number
    return found


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _listed(attributes: Attributes) -> dict[str, Any]:
    return {
        path: {name: list(v) if isinstance(v, tuple) else v for name, v in numbers.items()}
        for path, numbers in attributes.items()
    }
