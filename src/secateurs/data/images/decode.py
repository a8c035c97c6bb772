"""One image file in, an upright RGB image out; whatever is wrong with a file has a reason."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import struct
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal

from PIL import Image

from secateurs.data.images import decoding_memory
from secateurs.data.images.file_types import HEAD, true_format
from secateurs.data.images.modes import to_rgb
from secateurs.data.images.pnm import read_scaled
from secateurs.errors import InputError
from secateurs.files import open_regular

Reason = Literal["zero-byte", "unreadable", "truncated", "oversized"]
MAX_PIXELS = 178_956_970 // 2  # Pillow's own limit: a quarter of a GiB as 24-bit RGB
MAX_FILE_BYTES = 2**30
# A file's name is no promise: these are opened whatever the extension, and nothing else is.
# (JPEG's reader opens MPO, the pictures of some cameras, as well.)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
READ = "JPEG, PNG, WebP, BMP, TIFF, GIF or PNM"
_READ = frozenset({"JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "PNM", "BigTIFF"})


class DecodeError(InputError):
    """An image file that cannot be used, with its `reason` and a `detail` without the path."""

    def __init__(self, path: Path, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {reason} ({detail})")
        self.path = path
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True, eq=False)
class Decoded:
    """An upright RGB `image` and what was remarkable in its file.

    `notes` may hold "transparent" (alpha is zero everywhere, so that the colours below it are
    the image) and "N-bit" (grey values of a 16-bit image that only use the lowest N bits).
    """

    image: Image.Image
    notes: tuple[str, ...]


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


@functools.cache
def silence_libtiff() -> bool:
    """Stop libtiff from printing errors on the process's stderr; False where it cannot be reached.

    Pillow raises the same errors, and silences the library's warnings but not these. Where libtiff
    is linked into Pillow statically, its handler has no name.
    """
    try:
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (AttributeError, OSError, TypeError):
        return False
    return True


def open_file(path: Path) -> BufferedReader:
    """Open an image file for reading, which never waits and never reads anything but a file.

    Raises DecodeError for what is missing or no regular file (a pipe or a device, also behind a
    link), "zero-byte" for an empty file and "oversized" for one of more than 1 GiB.
    """
    path = Path(path)
    try:
        file = open_regular(path)
    except OSError as error:
        raise DecodeError(path, "unreadable", error.strerror or "cannot be opened") from None
    num_bytes = os.fstat(file.fileno()).st_size
    if 0 < num_bytes <= MAX_FILE_BYTES:
        return file
    file.close()
    if num_bytes == 0:
        raise DecodeError(path, "zero-byte", "the file is empty")
    limit = f"{MAX_FILE_BYTES / 2**20:.0f} MiB"
    detail = f"{num_bytes / 2**20:.0f} MiB, more than the limit of {limit}"
    raise DecodeError(path, "oversized", detail)


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file in mode "RGB": upright after EXIF, alpha laid on white, first frame.

    16-bit grey is scaled from 0..65535 to 0..255. Float and 32-bit grey is taken as 0..1 (float
    only), 0..255 or 0..65535, whichever is the first that holds all its values, else stretched
    from its minimum..maximum. Where alpha is zero everywhere the colours below it are the image.
    Colour profiles are not applied, as in torchvision.

    Raises DecodeError: "zero-byte", "unreadable", "truncated", or "oversized" when the header
    promises more than `max_pixels` pixels or decoding would take more than 1 GiB; then nothing
    is decoded. Threads that decode at once share this 1 GiB and wait for each other.
    """
    with decoding(path, max_pixels=max_pixels) as decoded:
        return decoded.image


@contextmanager
def decoding(path: Path, *, max_pixels: int = MAX_PIXELS) -> Generator[Decoded]:
    """What `decode` gives, and notes; its memory counts as used until the block ends.

    No thread may wait for another's decoding inside the block.
    """
    path = Path(path)
    with ExitStack() as held:
        with open_file(path) as file, without_warnings():
            num_bytes = os.fstat(file.fileno()).st_size
            decoded = _decoded(path, file, num_bytes, max_pixels, held)
        yield decoded


def decode_data(data: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file whose bytes are at hand, as `decode` gives it; `name` is for errors.

    >>> decode_data(b"")
    Traceback (most recent call last):
    secateurs.data.images.decode.DecodeError: image: zero-byte (the file is empty)
    """
    if not data:
        raise DecodeError(Path(name), "zero-byte", "the file is empty")
    with ExitStack() as held, without_warnings():
        return _decoded(Path(name), io.BytesIO(data), len(data), max_pixels, held).image


def _decoded(
    path: Path, file: BinaryIO, num_bytes: int, max_pixels: int, held: ExitStack
) -> Decoded:
    silence_libtiff()
    try:
        rgb, notes, turn = _loaded(path, file, num_bytes, max_pixels, held)
        # The file's own pixels are let go before those of the result are turned.
        return Decoded(rgb if turn is None else rgb.transpose(turn), notes)
    except DecodeError:
        raise
    except (Image.DecompressionBombError, decoding_memory.Excessive) as error:
        raise DecodeError(path, "oversized", _one_line(error)) from None
    except MemoryError:
        raise DecodeError(path, "oversized", "does not fit in memory") from None
    except Exception as error:
        # Pillow's readers meet broken files with many exceptions, SyntaxError among them.
        if "truncated" in str(error).lower() or _ends_early(file, num_bytes):
            detail = f"the file ends early, {num_bytes} bytes long"
            raise DecodeError(path, "truncated", detail) from None
        if isinstance(error, Image.UnidentifiedImageError):
            raise DecodeError(path, "unreadable", _not_an_image(file)) from None
        raise DecodeError(path, "unreadable", _one_line(error)) from None


def _loaded(
    path: Path, file: BinaryIO, num_bytes: int, max_pixels: int, held: ExitStack
) -> tuple[Image.Image, tuple[str, ...], Image.Transpose | None]:
    decoding_memory.check_metadata(file, num_bytes)
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise DecodeError(path, "oversized", _too_many(image.size, max_pixels))
        needed = decoding_memory.decode_bytes(image, file, num_bytes)
        if needed > decoding_memory.BUDGET.total:
            raise DecodeError(path, "oversized", _too_much(image, needed))
        held.enter_context(decoding_memory.BUDGET.reserve(needed))
        scaled = read_scaled(image, file)
        if scaled is not None:
            return *to_rgb(scaled), None
        image.load()
        turn = _turn(image)
        return *to_rgb(image), turn


def _too_many(size: tuple[int, int], max_pixels: int) -> str:
    return f"{size[0]} x {size[1]} pixels, more than the limit of {max_pixels}"


def _too_much(image: Image.Image, needed: int) -> str:
    return (
        f"{image.width} x {image.height} pixels of this kind of {image.format} take up to"
        f" {needed / 2**20:.0f} MiB to decode, more than the limit of"
        f" {decoding_memory.BUDGET.total / 2**20:.0f} MiB"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _not_an_image(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(HEAD)
    found = "zero bytes only" if not head.strip(b"\0") else true_format(head)
    if found is None:
        return f"not a {READ} image"
    if found in _READ:
        return f"a damaged {found} file, or of a kind of {found} that is not read"
    return f"not a {READ} image; by its content: {found}"


def _ends_early(file: BinaryIO, num_bytes: int) -> bool:
    # Asked only after decoding failed: does the container promise more than the file holds?
    file.seek(0)
    head = file.read(16)
    file.seek(max(0, num_bytes - 64))
    tail = file.read(64)
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in tail
    if head.startswith(b"RIFF"):
        return len(head) < 12 or struct.unpack("<I", head[4:8])[0] + 8 > num_bytes
    if head.startswith(b"BM"):
        return len(head) < 6 or struct.unpack("<I", head[2:6])[0] > num_bytes
    if head.startswith((b"II*\0", b"MM\0*")):
        order = "<" if head.startswith(b"II") else ">"
        if len(head) < 8:
            return True
        directory = struct.unpack(f"{order}I", head[4:8])[0]
        file.seek(directory)
        count = file.read(2)
        if len(count) < 2:
            return True
        return directory + 2 + 12 * struct.unpack(f"{order}H", count)[0] > num_bytes
    return False


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image) -> Image.Transpose | None:
    # As ImageOps.exif_transpose, which copies an image that is upright already.
    with contextlib.suppress(Exception):  # broken EXIF says nothing about the pixels
        orientation: Any = image.getexif().get(0x0112)
        return _TURNS.get(orientation)
    return None
