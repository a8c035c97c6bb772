"""Images at working resolution: the whole picture squashed, and what evaluation sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.errors import InputError

Resize = Literal["straight", "crop"]


def squash(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """A whole image as (side, side, 3) uint8, bilinear with antialiasing.

    >>> squash(Image.new("RGB", (40, 20)), 8).shape
    (8, 8, 3)
    """
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def eval_pixels(image: Image.Image, *, crop: int, resize: Resize) -> NDArray[np.uint8]:
    """What evaluation sees of an image: (crop, crop, 3) uint8.

    "straight" resizes it to the square; "crop" resizes the short side to crop * 256 / 224 and
    takes the centre, as torchvision's Resize and CenterCrop do on pictures. Raises InputError
    for another `resize`.
    """
    if resize == "straight":
        return squash(image, crop)
    if resize != "crop":
        raise InputError(f"resize must be straight or crop, got {resize!r}")
    short = crop * 256 // 224
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


@dataclass(frozen=True)
class Working:
    """What is kept of each image: its squashed side, the side of its evaluation view, and how."""

    side: int
    crop: int
    resize: Resize

    def render(self, image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Both views of an RGB image: (side, side, 3) and (crop, crop, 3) uint8."""
        whole = squash(image, self.side)
        return whole, eval_pixels(image, crop=self.crop, resize=self.resize)

    def shapes(self, num: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of both arrays for `num` images."""
        return (num, self.side, self.side, 3), (num, self.crop, self.crop, 3)
