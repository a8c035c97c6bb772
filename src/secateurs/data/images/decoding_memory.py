"""How much memory decoding an image takes, and one budget for all threads that decode."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

from PIL import Image

DECODE_BYTES = 2**30  # of all images that this process decodes at once
MARGIN_BYTES = 32 * 2**20  # resized copies, strips, readers' buffers
METADATA_BYTES = 64 * 2**20
COMPRESSED_BYTES = 256 * 2**20  # of a GIF or WebP, which are read whole or hold text anywhere
MAX_SCANS = 100  # of a JPEG; each one is a pass over the whole picture
MAX_PYTHON_PIXELS = 2**23  # of images that Pillow decodes in Python, a second a million or so
_RGB = 4  # bytes Pillow gives to a pixel of every mode but the following
_NARROW = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Pillow's WebP reader: two canvases, the library's planes, the frame as bytes, and the image.
_WEBP = 18
# Pillow's readers of run-length BMP and of text and scaled PNM collect a frame in Python.
_PYTHON = 9


class Excessive(ValueError):
    """A file that would take more time or memory than any picture needs."""


def decode_bytes(image: Image.Image, file: BinaryIO, file_bytes: int) -> int:
    """An upper bound of the bytes that decoding takes until the image is upright 8-bit RGB.

    `image` is opened and not loaded; only the header of `file` is read, which stays where it was.
    """
    pixels = image.width * image.height
    own = _NARROW.get(image.mode, _RGB)
    rows = 16 * image.height  # Pillow's pointers to the rows of two images
    if image.format == "WEBP":
        reading = pixels * _WEBP + 3 * file_bytes
    elif image.format in ("JPEG", "MPO"):
        reading = pixels * own + _coefficients(image, file)
    elif image.format == "TIFF":
        reading = pixels * own + _tiff_buffer(image, file_bytes)
    elif image.format in ("BMP", "DIB", "PPM") and _in_python(image):
        if pixels > MAX_PYTHON_PIXELS and not _in_python(image, ("ppm",)):
            raise Excessive(
                f"{pixels} pixels, more than the limit of {MAX_PYTHON_PIXELS} for run-length BMP"
                " and text PNM"
            )
        reading = pixels * (own + _PYTHON) + 512 * image.width
    else:
        reading = pixels * own
    tags: Any = getattr(image, "tag_v2", {})
    turned = 2 * own if tags.get(274, 1) != 1 else 0  # Pillow turns TIFF images itself
    converted = own + (0 if image.mode == "RGB" else _RGB)
    upright = 2 * _RGB if _may_turn(image) else _RGB
    return max(reading, pixels * max(turned, converted, upright)) + rows + MARGIN_BYTES


def _may_turn(image: Image.Image) -> bool:
    return any(name in image.info for name in ("exif", "xmp", "XML:com.adobe.xmp")) or any(
        str(name).startswith("Raw profile") for name in image.info
    )


def _coefficients(image: Image.Image, file: BinaryIO) -> int:
    # Several scans: libjpeg holds all coefficients, of two bytes each, until the last one.
    scans = _several_scans(file)
    if not scans:
        return 0
    if scans > MAX_SCANS:
        raise Excessive(f"more than {MAX_SCANS} scans")
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    widest = max((h for _, h, _, _ in layers), default=1)
    highest = max((v for _, _, v, _ in layers), default=1)
    share = sum(h * v / (widest * highest) for _, h, v, _ in layers) or 4.0
    padded = (image.width + 32) * (image.height + 32)
    return int(2 * share * padded)


def _several_scans(file: BinaryIO) -> int:
    """The number of scans of a JPEG that is not read in one pass; 0 for one that is."""
    position = file.tell()
    try:
        file.seek(2)
        components, progressive = 0, False
        while len(marker := file.read(2)) == 2:
            if marker[0] != 0xFF:
                return 1
            while marker[1] == 0xFF:  # fill bytes
                marker = b"\xff" + (file.read(1) or b"\xd9")
            code = marker[1]
            if code == 0xD9:
                return 1
            if code in (0x01, *range(0xD0, 0xD9)):
                continue
            length = int.from_bytes(file.read(2), "big")
            if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
                body = file.read(min(length - 2, 6)) if length > 2 else b""
                components = body[5] if len(body) > 5 else 0
                progressive = code in (0xC2, 0xC6, 0xCA, 0xCE)
                file.seek(length - 2 - len(body), 1)
            elif code == 0xDA:
                several = progressive or (file.read(1) or b"\0")[0] < components
                return 1 + _count(file, b"\xff\xda", MAX_SCANS) if several else 0
            else:
                file.seek(max(0, length - 2), 1)
        return 1
    finally:
        file.seek(position)


def _count(file: BinaryIO, pattern: bytes, most: int) -> int:
    """How often two bytes occur in the rest of a file; counting ends beyond `most`."""
    found, before = 0, b""
    while found <= most and (block := file.read(2**20)):
        found += (before + block).count(pattern)
        before = block[-1:]
    return found


def _tiff_buffer(image: Image.Image, file_bytes: int) -> int:
    # libtiff maps the file; a strip or tile, whole, is in a buffer of its own and one of Pillow's.
    if all(tile[0] != "libtiff" for tile in getattr(image, "tile", [])):
        return 0
    tags: Any = getattr(image, "tag_v2", {})
    bits: Any = tags.get(258, (8,)) or (8,)
    samples = tags.get(277, 1)
    bits_of_pixel = max(bits) * max(samples, 1)
    width = int(tags.get(322, image.width))
    height = int(tags.get(323, min(tags.get(278, image.height), image.height)))
    return file_bytes + 2 * width * height * max(4, bits_of_pixel // 8 + 1)


def _in_python(
    image: Image.Image, decoders: tuple[str, ...] = ("bmp_rle", "ppm", "ppm_plain")
) -> bool:
    return any(tile[0] in decoders for tile in getattr(image, "tile", []))


def check_metadata(file: BinaryIO, file_bytes: int) -> None:
    """Refuse a file whose header alone would take too much memory; it stays where it was.

    Pillow keeps what precedes the pixels (EXIF, colour profiles, text, tables of a TIFF's strips)
    when it opens a file, before its size in pixels is known. Raises Excessive.
    """
    if file_bytes <= METADATA_BYTES:
        return
    position = file.tell()
    try:
        file.seek(0)
        head = file.read(12)
        if head.startswith(b"\xff\xd8"):
            found = _jpeg_metadata(file)
        elif head.startswith(b"\x89PNG"):
            found = _png_metadata(file, file_bytes)
        elif head.startswith((b"II", b"MM")):
            found = _tiff_metadata(file, head, file_bytes)
        elif head.startswith((b"GIF8", b"RIFF")):
            found = 0 if file_bytes <= COMPRESSED_BYTES else file_bytes
        else:
            found = 0
    finally:
        file.seek(position)
    if found > METADATA_BYTES:
        raise Excessive(
            f"{found / 2**20:.0f} MiB beside the pixels, more than the limit of"
            f" {METADATA_BYTES / 2**20:.0f} MiB"
        )


def _jpeg_metadata(file: BinaryIO) -> int:
    file.seek(2)
    while len(marker := file.read(2)) == 2 and marker[0] == 0xFF and marker[1] != 0xDA:
        if marker[1] in (0xFF, 0x01, *range(0xD0, 0xD9)):
            file.seek(-1 if marker[1] == 0xFF else 0, 1)
            continue
        length = int.from_bytes(file.read(2), "big")
        file.seek(max(0, length - 2), 1)
    return file.tell()


def _png_metadata(file: BinaryIO, file_bytes: int) -> int:
    file.seek(8)
    found = 0
    while len(head := file.read(8)) == 8 and file.tell() < file_bytes:
        length = int.from_bytes(head[:4], "big")
        if head[4:] not in (b"IDAT", b"fdAT"):
            found += length
        file.seek(length + 4, 1)
    return found


def _tiff_metadata(file: BinaryIO, head: bytes, file_bytes: int) -> int:
    order: Literal["little", "big"] = "little" if head.startswith(b"II") else "big"
    big = 43 in (head[2], head[3])
    width = 8 if big else 4
    file.seek(int.from_bytes(head[4:8] if not big else head[8:12] + file.read(4), order))
    num = int.from_bytes(file.read(8 if big else 2), order)
    found = 0
    for _ in range(min(num, 65536)):
        entry = file.read(20 if big else 12)
        if len(entry) < 12:
            break
        kind, count = int.from_bytes(entry[2:4], order), int.from_bytes(entry[4 : 4 + width], order)
        # Numbers become Python's own, of some ten times the bytes, unless they are text or raw.
        size = count * (1 if kind in (1, 2, 6, 7) else 36)
        found += size if size <= 36 * file_bytes else 0
    return found


class MemoryBudget:
    """Bytes that threads reserve before they decode, so that together they stay within `total`.

    One that needs more than is left waits; one that needs more than `total` runs alone.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._changed = threading.Condition()
        self._held = threading.local()

    @contextmanager
    def reserve(self, num_bytes: int) -> Generator[None]:
        """Hold `num_bytes` while the block runs; within a block of the same thread, nothing."""
        if getattr(self._held, "any", False):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + num_bytes <= self.total)
            self._used += num_bytes
        self._held.any = True
        try:
            yield
        finally:
            self._held.any = False
            with self._changed:
                self._used -= num_bytes
                self._changed.notify_all()


BUDGET = MemoryBudget(DECODE_BYTES)
