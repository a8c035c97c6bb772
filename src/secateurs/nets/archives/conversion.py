"""Published arrays brought into the names, the layout and the input of a network of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.nets.archives.arrays import Arrays

Shapes = Mapping[str, tuple[int, ...]]  # of the network's own tensors, in its order

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of values in 0..1
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of values in 0..255, red first


def alexnet_features(tree: Any, shapes: Shapes) -> Arrays:
    """The convolutions of AlexNet in JAX (kernels height, width, in, out) as torchvision's."""
    return _convolutions(tree, "AlexNet_0", [0, 3, 6, 8, 10])


def vgg16_features(tree: Any, shapes: Shapes) -> Arrays:
    """The convolutions of VGG-16 in JAX (kernels height, width, in, out) as torchvision's."""
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    return _convolutions(tree, "VGG16_0", places)


def _convolutions(tree: Any, root: str, places: Sequence[int]) -> Arrays:
    arrays: Arrays = {}
    try:
        for number, place in enumerate(places):
            part = tree[root][f"Conv_{number}"]
            arrays[f"features.{place}.weight"] = _turned(part["kernel"])
            arrays[f"features.{place}.bias"] = np.ascontiguousarray(part["bias"], np.float32)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _another_layout(error) from None
    return arrays


def _turned(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """A kernel (height, width, in, out) as (out, in, height, width)."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), dtype=np.float32)


def _another_layout(error: Exception) -> InputError:
    return InputError(f"the archive's weights are not laid out as expected ({error})")


def squeezenet(tree: Any, shapes: Shapes) -> Arrays:
    """SqueezeNet 1.1 of Caffe as torchvision's, with torchvision's input instead of Caffe's.

    Caffe's input is 0..255, blue first, less its mean. With t torchvision's input, that value is
    255 (mean + std t), so that a kernel W (red first) on Caffe's input is 255 std W on t, and its
    bias grows by the sum of W (255 mean - Caffe's mean): exact, as this convolution has no padding.
    """
    arrays: Arrays = {}
    fires = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
    names = {"conv1": "features.0", "conv10": "classifier.1"} | {
        f"fire{number}/{part}": f"features.{place}.{own}"
        for number, place in fires.items()
        for part, own in (
            ("squeeze1x1", "squeeze"),
            ("expand1x1", "expand1x1"),
            ("expand3x3", "expand3x3"),
        )
    }
    try:
        for name, path in names.items():
            kernel, bias = tree[name]
            weight = np.asarray(kernel, np.float64).transpose(3, 2, 0, 1)
            bias = np.asarray(bias, np.float64)
            if name == "conv1":
                weight = weight[:, ::-1]  # red first
                shift = 255 * np.array(MEAN) - np.array(CAFFE_MEAN)
                bias = bias + np.einsum("oihw,i->o", weight, shift)
                weight = weight * (255 * np.array(STD))[:, None, None]
            arrays[f"{path}.weight"] = np.ascontiguousarray(weight, np.float32)
            arrays[f"{path}.bias"] = np.ascontiguousarray(bias, np.float32)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _another_layout(error) from None
    return arrays


def in_order(tree: Any, shapes: Shapes) -> Arrays:
    """The tensors of a network that has the same ones in the same order under other names."""
    given = list(dict(tree).items())
    if len(given) != len(shapes):
        raise InputError(f"the archive has {len(given)} tensors, the network {len(shapes)}")
    arrays: Arrays = {}
    for (name, array), (own, shape) in zip(given, shapes.items(), strict=True):
        if tuple(array.shape) != shape:
            raise InputError(
                f"the archive's {name} is {tuple(array.shape)}, the network's {own} is {shape}"
            )
        arrays[own] = array
    return arrays


def as_it_is(tree: Any, shapes: Shapes) -> Arrays:
    """The tensors of a network of the same names."""
    return dict(tree)
