"""Damaged images: each is decoded or refused with its reason, in time and in bounded memory."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kills import Tally
from mutations import PeakMemory, guarded, mutate, with_checksums

MOST_MIB = 1024  # docs/studies/images.md
TOGETHER = 100  # images of one audit
FORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 100, "subsampling": 0}),
    ("JPEG", {"optimize": True, "comment": b"a comment"}), ("JPEG", {"restart_marker_blocks": 2}),
    ("PNG", {}), ("PNG", {"bits": 4}), ("PNG", {"transparency": 3}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("BMP", {}), ("DIB", {}), ("GIF", {}), ("PPM", {}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "tiff_deflate"}), ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"compression": "group4"}), ("TIFF", {"big_tiff": True}),
)  # fmt: skip
MODES = ("RGB", "L", "P", "PA", "RGBA", "CMYK", "YCbCr", "1", "LA")


def samples() -> list[tuple[str, bytes]]:
    """Small images in every format and mode that can be written, as (name, bytes)."""
    generator = np.random.default_rng(0)
    rgb = Image.fromarray(generator.integers(0, 256, (40, 56, 3)).astype(np.uint8))
    smooth = Image.linear_gradient("L").resize((56, 40))
    deep = generator.integers(0, 65536, (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    found: list[tuple[str, bytes]] = []

    def add(image: Image.Image, form: str, **options: Any) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            into = io.BytesIO()
            image.save(into, form, **options)
            found.append((f"{form.lower()}-{image.mode}", into.getvalue()))

    for form, options in FORMS:
        for mode in MODES:
            with contextlib.suppress(ValueError):
                add(rgb.convert(mode), form, **options)
        add(smooth, form, **options)
    for form in ("PNG", "TIFF", "PPM"):
        add(Image.fromarray(deep.astype(np.uint16)), form)
    add(Image.fromarray(deep.astype(np.int32)), "TIFF")
    add(Image.fromarray(deep.astype(np.float32)), "TIFF")
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        add(rgb, form, exif=exif)
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        add(rgb, form, save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    return found


def broken(made: list[tuple[str, bytes]], chance: random.Random) -> tuple[str, bytes]:
    """A damaged image and the name of what it was."""
    name, data = chance.choice(made)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        data = mutate(data, chance, other=chance.choice(made)[1])
    return name, with_checksums(data) if chance.random() < 0.6 else data


def images(
    count: int, folder: Path, chance: random.Random, *, until: Callable[[], bool] = lambda: False
) -> tuple[Tally, dict[str, float]]:
    """Decode damaged images one by one, and audit them by the hundred.

    Returns the tally, and the longest time and the highest memory of one image.
    """
    from secateurs.data.images.decode import decode

    tally, made, memory, longest = Tally(), samples(), PeakMemory(), 0.0
    classes = [folder / "images" / name for name in ("one", "two")]
    for one in classes:
        one.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if until():
            break
        name, data = broken(made, chance)
        path = classes[number % 2] / f"{number % TOGETHER:03d}.png"
        path.write_bytes(data)

        def read(path: Path = path) -> str | None:
            image = decode(path)
            return None if image.mode == "RGB" else f"mode {image.mode}"

        memory.start()
        started = time.monotonic()
        trouble = guarded(f"image {number} ({name})", read)
        longest = max(longest, time.monotonic() - started)
        risen = memory.risen()
        if trouble is None and risen > MOST_MIB:
            trouble = f"image {number} ({name}): {risen:.0f} MiB"
        if trouble:
            shutil.copy(path, folder / f"failed-{number}.{name}")
        tally.add(trouble)
        if (number + 1) % TOGETHER == 0:
            trouble = _audited(folder / "images", number)
            if trouble:
                shutil.copytree(folder / "images", folder / f"failed-audit-{number}")
                tally.wrong.append(trouble)
    return tally, {"slowest_s": round(longest, 3), "peak_mib": round(memory.largest_mib, 1)}


def _audited(folder: Path, number: int) -> str | None:
    from secateurs.data.audit import audit

    def read() -> str | None:
        found = audit(folder, workers=1)
        return None if found is not None else "no audit"

    return guarded(f"audit of the images before {number}", read)
