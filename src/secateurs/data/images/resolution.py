"""Images at working resolution: the whole picture squashed, and what evaluation sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.errors import InputError

Resize = Literal["straight", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
CROP_SHARE = 224 / 256  # of the short side, which remains where the centre is cut out
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_RATIO = 16  # of the sides, up to which a picture is resized whole before it is cropped
LONG_SIDE_PX = 65_535
PASS_PIXELS = 2**24  # of the result of the first of two passes


def resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """An image resized to `size`, in memory that does not grow with its shape.

    Pillow resizes along rows first, to (width, old height), with tables of 16 bytes a row: some
    hundred GB for a picture that is one pixel wide. A side of more than 65,535 pixels is brought
    below by whole factors first, and the first pass is along columns where that is smaller by far.
    """
    factors = (_factor(image.width), _factor(image.height))
    if factors != (1, 1):
        image = image.reduce(factors)
    if size[0] * image.height > PASS_PIXELS > image.width * size[1]:
        image = image.resize((image.width, size[1]), resample)
    return image.resize(size, resample)


def _factor(side: int) -> int:
    return 1 if side <= LONG_SIDE_PX else -(-side // (LONG_SIDE_PX // 2))


def squash(
    image: Image.Image, side: int, interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """A whole image as (side, side, 3) uint8, with antialiasing.

    >>> squash(Image.new("RGB", (40, 20)), 8).shape
    (8, 8, 3)
    """
    return np.asarray(resized(image, (side, side), _RESAMPLING[interpolation]))


def eval_pixels(
    image: Image.Image,
    *,
    crop: int,
    resize: Resize,
    interpolation: Interpolation = "bilinear",
    crop_share: float = CROP_SHARE,
) -> NDArray[np.uint8]:
    """What evaluation sees of an image: (crop, crop, 3) uint8.

    "straight" resizes it to the square; "crop" resizes the short side to crop / `crop_share` and
    takes the centre, as torchvision's Resize and CenterCrop do on pictures. Where one side is
    more than 16 times the other, the centre is cut out first: the same to rounding. Raises
    InputError for another `resize`.
    """
    if resize == "straight":
        return squash(image, crop, interpolation)
    if resize != "crop":
        raise InputError(f"resize must be straight or crop, got {resize!r}")
    short = int(crop / crop_share + 1e-6)  # timm rounds down, too
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    left, top = round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)
    box = (left, top, left + crop, top + crop)
    resample = _RESAMPLING[interpolation]
    if max(width, height) > MAX_RATIO * min(width, height):
        return np.asarray(_crop_then_resize(image, size, box, resample))
    return np.asarray(image.resize(size, resample).crop(box))


def _crop_then_resize(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """The `box` of an image resized to `size`, of which only what the box needs is computed."""
    scales = (image.width / size[0], image.height / size[1])  # source pixels a pixel
    wanted = [box[k] * scales[k % 2] for k in range(4)]
    # A pixel is a mean over two pixels' widths, of the source or the result; bicubic over four.
    width = 2.0 if resample == Image.Resampling.BICUBIC else 1.0
    reach = [width * max(scale, 1.0) + 1.0 for scale in scales]
    outer = (
        max(0, math.floor(wanted[0] - reach[0])),
        max(0, math.floor(wanted[1] - reach[1])),
        min(image.width, math.ceil(wanted[2] + reach[0])),
        min(image.height, math.ceil(wanted[3] + reach[1])),
    )
    inner = (
        wanted[0] - outer[0],
        wanted[1] - outer[1],
        wanted[2] - outer[0],
        wanted[3] - outer[1],
    )
    shape = (box[2] - box[0], box[3] - box[1])
    return image.crop(outer).resize(shape, resample, box=inner)


@dataclass(frozen=True)
class Working:
    """What is kept of each image: its squashed side, the side of its evaluation view, and how."""

    side: int
    crop: int
    resize: Resize
    interpolation: Interpolation = "bilinear"
    crop_share: float = CROP_SHARE

    def render(self, image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Both views of an RGB image: (side, side, 3) and (crop, crop, 3) uint8."""
        whole = squash(image, self.side, self.interpolation)
        seen = eval_pixels(
            image,
            crop=self.crop,
            resize=self.resize,
            interpolation=self.interpolation,
            crop_share=self.crop_share,
        )
        return whole, seen

    def shapes(self, num: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of both arrays for `num` images."""
        return (num, self.side, self.side, 3), (num, self.crop, self.crop, 3)

    def identity(self) -> dict[str, Any]:
        """What decides the pixels; the usual interpolation and share are not named."""
        named: dict[str, Any] = {"side": self.side, "crop": self.crop, "resize": self.resize}
        if self.interpolation != "bilinear":
            named["interpolation"] = self.interpolation
        if self.resize == "crop" and self.crop_share != CROP_SHARE:
            named["crop_share"] = self.crop_share
        return named
