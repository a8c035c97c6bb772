"""Binary PGM and PPM whose white is no full scale of 8 or 16 bits, which Pillow reads slowly."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from PIL import Image


def read_scaled(image: Image.Image, file: BinaryIO) -> Image.Image | None:
    """The pixels of an opened image that Pillow would scale one by one in Python, else None.

    The same values: those of 8 bits are scaled to 0..255, grey of more bits to 0..65535. Raises
    OSError when the file ends early.
    """
    tiles: list[Any] = getattr(image, "tile", [])
    if image.format != "PPM" or len(tiles) != 1 or tiles[0][0] != "ppm":
        return None
    offset, args = tiles[0][2], tiles[0][3]
    maximum = int(args[-1] if isinstance(args, tuple) else args)
    bands = len(image.getbands())
    kind = np.dtype(np.uint8 if maximum < 256 else ">u2")
    count = image.width * image.height * bands
    file.seek(offset)
    data = file.read(count * kind.itemsize)
    if len(data) < count * kind.itemsize:
        raise OSError("image file is truncated")
    wide = image.mode == "I"
    white = 65535 if wide else 255
    table = np.rint(np.arange(2 ** (8 * kind.itemsize)) / maximum * white)
    table = np.minimum(table, white).astype(np.uint16 if wide else np.uint8)
    shape = (image.height, image.width, bands) if bands > 1 else (image.height, image.width)
    return Image.fromarray(table[np.frombuffer(data, kind)].reshape(shape))
