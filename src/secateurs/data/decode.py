"""One image file in, an upright RGB image out; whatever is wrong with a file has a reason."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from secateurs.errors import InputError
from secateurs.files import open_regular

Reason = Literal["zero-byte", "unreadable", "truncated", "oversized"]
MAX_PIXELS = 178_956_970 // 2  # Pillow's own limit: a quarter of a GiB as 24-bit RGB
# A file's name is no promise: these are opened whatever the extension, and nothing else is.
# (JPEG's reader opens MPO, the pictures of some cameras, as well.)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")


class DecodeError(InputError):
    """An image file that cannot be used, with its `reason` and a `detail` without the path."""

    def __init__(self, path: Path, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {reason} ({detail})")
        self.path = path
        self.reason: Reason = reason
        self.detail = detail


class _Silence:
    """Warnings off while any thread is inside.

    The list of filters belongs to the process, so `catch_warnings` in each of several threads
    would restore it in the wrong order. Here the first to enter changes it, the last restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stack = ExitStack()

    @contextmanager
    def __call__(self) -> Generator[None]:
        with self._lock:
            if self._inside == 0:
                self._stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._stack.close()


without_warnings = _Silence()


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file in mode "RGB": upright after EXIF, alpha laid on white, first frame.

    16-bit grey is scaled from 0..65535 to 0..255. Float and 32-bit grey is taken as 0..1 (float
    only), 0..255 or 0..65535, whichever is the first that holds all its values, else stretched
    from its minimum..maximum. Colour profiles are not applied, as in torchvision.

    Raises DecodeError: "zero-byte", "unreadable", "truncated", or "oversized" when the header
    promises more than `max_pixels` pixels; then nothing is decoded.
    """
    path = Path(path)
    try:
        data = open_regular(path)
    except OSError as error:
        raise DecodeError(path, "unreadable", error.strerror or "cannot be opened") from None
    with data, without_warnings():
        if path.stat().st_size == 0:
            raise DecodeError(path, "zero-byte", "the file is empty")
        try:
            with Image.open(data, formats=FORMATS) as image:
                num_pixels = image.width * image.height
                if num_pixels > max_pixels:
                    raise DecodeError(path, "oversized", _too_many(image.size, max_pixels))
                image.load()
                return _to_rgb(_upright(image))
        except DecodeError:
            raise
        except Image.DecompressionBombError as error:
            raise DecodeError(path, "oversized", _one_line(error)) from None
        except MemoryError:
            raise DecodeError(path, "oversized", "does not fit in memory") from None
        except Exception as error:
            # Pillow's readers meet broken files with many exceptions, SyntaxError among them.
            if "truncated" in str(error).lower() or _ends_early(path):
                detail = f"the file ends early, {path.stat().st_size} bytes long"
                raise DecodeError(path, "truncated", detail) from None
            if isinstance(error, Image.UnidentifiedImageError):
                detail = "not a JPEG, PNG, WebP, BMP, TIFF or GIF image"
                raise DecodeError(path, "unreadable", detail) from None
            raise DecodeError(path, "unreadable", _one_line(error)) from None


def _too_many(size: tuple[int, int], max_pixels: int) -> str:
    return f"{size[0]} x {size[1]} pixels, more than the limit of {max_pixels}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _ends_early(path: Path) -> bool:
    # Asked only after decoding failed: does the container promise more than the file holds?
    data = path.read_bytes()
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-64:]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"RIFF"):
        return len(data) < 12 or struct.unpack("<I", data[4:8])[0] + 8 > len(data)
    if data.startswith(b"BM"):
        return len(data) < 6 or struct.unpack("<I", data[2:6])[0] > len(data)
    if data.startswith((b"II*\0", b"MM\0*")):
        order = "<" if data.startswith(b"II") else ">"
        if len(data) < 8:
            return True
        directory = struct.unpack(f"{order}I", data[4:8])[0]
        if directory + 2 > len(data):
            return True
        num_entries = struct.unpack(f"{order}H", data[directory : directory + 2])[0]
        return directory + 2 + 12 * num_entries > len(data)
    return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        image.getexif()
    except Exception:
        return image  # broken EXIF says nothing about the pixels
    return ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64)
        return _with_key(_grey_to_rgb(grey, 65535.0), grey, image.info.get("transparency"))
    if image.mode in ("I", "F"):
        grey = np.asarray(image).astype(np.float64)
        return _with_key(
            _grey_to_rgb(grey, _full_scale(grey, fractions=image.mode == "F")),
            grey,
            image.info.get("transparency"),
        )
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None, "profileToProfile returns an image unless in place"
        return converted
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _full_scale(grey: NDArray[np.float64], *, fractions: bool) -> float | None:
    if not np.isfinite(grey).all():
        raise ValueError("has values that are not finite")
    if grey.min() < 0:
        return None
    for scale in (1.0, 255.0, 65535.0) if fractions else (255.0, 65535.0):
        if grey.max() <= scale:
            return scale
    return None


def _grey_to_rgb(grey: NDArray[np.float64], scale: float | None) -> Image.Image:
    # `scale` is the value of white; None stretches minimum..maximum.
    low, high = (0.0, scale) if scale is not None else (float(grey.min()), float(grey.max()))
    span = high - low or 1.0
    levels = np.floor((grey - low) * 255.0 / span + 0.5).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _with_key(rgb: Image.Image, grey: NDArray[np.float64], key: Any) -> Image.Image:
    # PNG may name one grey level as transparent.
    if isinstance(key, int):
        mask = Image.fromarray((grey == key).astype(np.uint8) * 255)
        rgb.paste((255, 255, 255), mask=mask)
    return rgb
