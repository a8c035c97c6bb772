"""What a backbone expects of its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
CROP_SHARE = 224 / 256


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone expects: a square of `size` pixels, values in 0..1, minus mean, over std.

    `interpolation` is how images are resized, and `crop_share` how much of the short side remains
    where the centre is cut out.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    crop_share: float = CROP_SHARE


def three(values: object) -> tuple[float, float, float]:
    """Three numbers out of a list; one number stands for all three.

    >>> three([0.5])
    (0.5, 0.5, 0.5)
    """
    numbers = [float(value) for value in values] if isinstance(values, list | tuple) else []
    if len(numbers) == 1:
        numbers *= 3
    return numbers[0], numbers[1], numbers[2]
