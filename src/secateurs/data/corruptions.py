"""Common corruptions of images at fixed strengths: blur, noise, light, JPEG, crop."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from secateurs.errors import InputError

Pixels = NDArray[np.uint8]

BLUR_SHARE = 1 / 100  # standard deviation of the blur, of the image's side
NOISE_STD = 25.0  # of 255
DARK, BRIGHT = 0.5, 1.6  # factors of the light
JPEG_QUALITY = 15
CROP_SHARE = 0.7  # of the side that is left


def corrupt(pixels: Pixels, ids: NDArray[np.uint64], name: str) -> Pixels:
    """Images (n, size, size, 3) under one of `CORRUPTIONS`; the same images give the same result.

    The noise of an image depends on its content id in `ids` (n,) alone. Raises InputError for an
    unknown name.

    >>> grey = np.full((1, 8, 8, 3), 100, dtype=np.uint8)
    >>> int(corrupt(grey, np.array([7], dtype=np.uint64), "dark")[0, 0, 0, 0])
    50
    """
    if name not in CORRUPTIONS:
        raise InputError(f"unknown corruption {name!r}; known are {', '.join(CORRUPTIONS)}")
    change = CORRUPTIONS[name]
    return np.stack([change(one, int(id_)) for one, id_ in zip(pixels, ids, strict=True)])


def _blur(pixels: Pixels, number: int) -> Pixels:
    radius = BLUR_SHARE * pixels.shape[0]
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: Pixels, number: int) -> Pixels:
    noise = np.random.default_rng(number).normal(0, NOISE_STD, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _light(factor: float) -> Callable[[Pixels, int], Pixels]:
    def change(pixels: Pixels, number: int) -> Pixels:
        return np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)

    return change


def _jpeg(pixels: Pixels, number: int) -> Pixels:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format="JPEG", quality=JPEG_QUALITY)
    packed.seek(0)
    with Image.open(packed) as opened:
        return np.asarray(opened.convert("RGB"))


def _crop(pixels: Pixels, number: int) -> Pixels:
    side = pixels.shape[0]
    away = round(side * (1 - CROP_SHARE) / 2)
    box = (away, away, side - away, side - away)
    return np.asarray(
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=box)
    )


CORRUPTIONS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "blur": _blur,
    "noise": _noise,
    "dark": _light(DARK),
    "bright": _light(BRIGHT),
    "jpeg": _jpeg,
    "crop": _crop,
}
