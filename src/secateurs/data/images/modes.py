"""Images in the modes that files come in, turned into 8-bit RGB piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PIECE_PIXELS = 2**18
WHITE = (255, 255, 255)
FEW_BITS = 14  # of the values in a 16-bit image that make a finding

Box = tuple[int, int, int, int]


def pieces(size: tuple[int, int]) -> Generator[Box]:
    """Boxes of at most 2**18 pixels that cover an image of `size` (width, height).

    >>> list(pieces((2, 3)))
    [(0, 0, 2, 3)]
    """
    width, height = size
    across = min(width, PIECE_PIXELS)
    down = max(1, PIECE_PIXELS // max(1, across))
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A loaded image as 8-bit RGB, and what is remarkable about it (see `decode.NOTES`).

    Beside the image and the result only pieces are held. An RGB image gives its own pixels.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        return _in_pieces(image, lambda piece: _transformed(piece, transform)), ()
    if image.has_transparency_data:
        opaque = _Opacity()
        rgb = _in_pieces(image, opaque.on_white)
        if opaque.highest > 0:
            return rgb, ()
        # Nothing at all would be seen: an icon's or a camera's alpha that was never filled in.
        return _in_pieces(image, lambda piece: piece.convert("RGBA").convert("RGB")), (
            "transparent",
        )
    if image.mode == "RGB":
        return Image.Image._new(image, image.im), ()  # pyright: ignore[reportPrivateUsage]
    return image.convert("RGB"), ()


def _in_pieces(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rgb = Image.new("RGB", image.size)
    for box in pieces(image.size):
        rgb.paste(convert(image.crop(box)), box)
    return rgb


def _transformed(piece: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(piece, transform)
    assert converted is not None, "applyTransform returns an image unless in place"
    return converted


class _Opacity:
    """Lays pieces on white and remembers the highest alpha."""

    def __init__(self) -> None:
        self.highest = 0

    def on_white(self, piece: Image.Image) -> Image.Image:
        rgba = piece.convert("RGBA")
        extrema: Any = rgba.getextrema()
        self.highest = max(self.highest, extrema[3][1])
        if extrema[3][0] == 255:
            return rgba.convert("RGB")
        white = Image.new("RGBA", rgba.size, (*WHITE, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")


def _grey(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    tags: Any = getattr(image, "tag_v2", {})
    low, high = _bounds(image)
    wide = image.mode.startswith("I;16")
    if wide:
        # A TIFF may say itself that its values have 12 bits.
        white: float | None = 4095.0 if tags.get(258) == (12,) else 65535.0
    elif image.format == "PPM" and image.mode == "I":
        white = 65535.0
    else:
        white = _full_scale(low, high, fractions=image.mode == "F")
    start, stop = (0.0, white) if white is not None else (low, high)
    span = stop - start or 1.0
    # TIFF's photometric interpretation 0: zero is white. Pillow inverts 8-bit images only.
    inverted = tags.get(262) == 0
    key = image.info.get("transparency")
    table = _levels(np.arange(65536, dtype=np.float64), start, span, inverted) if wide else None

    def convert(piece: Image.Image) -> Image.Image:
        values = np.asarray(piece)
        if table is not None:
            levels = table[values]
        else:
            levels = _levels(values.astype(np.float64), start, span, inverted)
        rgb = Image.fromarray(levels).convert("RGB")
        if isinstance(key, int):  # PNG may name one grey level as transparent
            rgb.paste(WHITE, mask=Image.fromarray((values == key).astype(np.uint8) * 255))
        return rgb

    notes: tuple[str, ...] = ()
    bits = int(high).bit_length() if white == 65535.0 and low >= 0 else 0
    if 0 < bits <= FEW_BITS:
        notes = (f"{bits}-bit",)
    return _in_pieces(image, convert), notes


def _bounds(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for box in pieces(image.size):
        values = np.asarray(image.crop(box))
        if not np.isfinite(values).all():
            raise ValueError("has values that are not finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _levels(
    grey: NDArray[np.float64], start: float, span: float, inverted: bool
) -> NDArray[np.uint8]:
    shown = np.floor((grey - start) * 255.0 / span + 0.5)
    levels = np.clip(shown, 0, 255).astype(np.uint8)
    return 255 - levels if inverted else levels


def _full_scale(low: float, high: float, *, fractions: bool) -> float | None:
    if low < 0:
        return None
    for scale in (1.0, 255.0, 65535.0) if fractions else (255.0, 65535.0):
        if high <= scale:
            return scale
    return None


def tone_notes(image: Image.Image) -> tuple[str, ...]:
    """Whether an RGB image shows next to nothing: "constant", "dark" or "blank".

    "constant": all pixels are the same; "dark": 99% of the pixels have no channel above 16 of 255;
    "blank": every channel's standard deviation is below 2, or 99% of the pixels have no channel
    below 250.
    """
    counts = np.array(image.histogram(), dtype=np.int64).reshape(3, 256)
    if (np.count_nonzero(counts, axis=1) == 1).all():
        return ("constant",)
    num = image.width * image.height
    levels = np.arange(256)
    mean = counts @ levels / num
    deviation = np.sqrt(np.maximum(counts @ (levels**2) / num - mean**2, 0.0))
    # A pixel with a channel beyond the bound is counted once at least, three times at most.
    if counts[:, 17:].sum() <= 0.01 * num:
        return ("dark",)
    if (deviation < 2.0).all() or counts[:, :250].sum() <= 0.01 * num:
        return ("blank",)
    return ()
