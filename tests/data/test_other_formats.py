from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from secateurs.data.images.decode import DecodeError, decode


def box(major: bytes, *others: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(others)
    return (len(body) + 4).to_bytes(4, "big") + body + b"\0\0\0\x10meta"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (box(b"heic", b"mif1", b"heic"), "HEIC"),
        (box(b"mif1", b"mif1", b"heic"), "HEIC"),
        (box(b"mif1", b"avif"), "AVIF"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"<?xml version='1.0'?>\n<svg xmlns=", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (bytes(700), "zero bytes only"),
    ],
)
def test_the_true_format_of_a_renamed_file_is_named(tmp_path: Path, content: bytes, name: str):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(
        DecodeError,
        match=rf"unreadable \(not a JPEG, .* or PNM image; by its content: {name}\)$",
    ):
        decode(tmp_path / "x.jpg")


def test_a_real_avif_is_named(tmp_path: Path):
    if not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "x.png", "AVIF")
    with pytest.raises(DecodeError, match="by its content: AVIF"):
        decode(tmp_path / "x.png")


def test_what_nothing_is_known_of_and_what_is_damaged(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"\x07\x01\xfe\x00 nothing known")
    with pytest.raises(DecodeError, match=r"\(not a JPEG, PNG, WebP, BMP, TIFF, GIF or PNM image"):
        decode(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50) + b"IEND")
    with pytest.raises(DecodeError, match=r"unreadable \(a damaged PNG file, or of a kind of PNG"):
        decode(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["ppm", "pgm", "pbm"])
def test_portable_maps_are_read(tmp_path: Path, suffix: str):
    image = Image.new({"ppm": "RGB", "pgm": "L", "pbm": "1"}[suffix], (4, 2), 1)
    image.save(tmp_path / f"x.{suffix}")
    assert decode(tmp_path / f"x.{suffix}").size == (4, 2)
