from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.audit import audit
from secateurs.data.images import modes
from secateurs.data.images.decode import DecodeError, decode, decoding
from secateurs.data.images.modes import pieces, tone_notes


def scene(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    with decoding(path) as found:
        return np.array(found.image), found.notes


def bmp32(pixels: np.ndarray, alpha: int, *, masks: bool = True) -> bytes:
    """A 32-bit BMP with a version 4 header, as drawing programs write it; rows bottom up."""
    height, width, _ = pixels.shape
    bgra = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)])[::-1]
    fields = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if masks else (0, 0, 0, 0)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3 if masks else 0, 0, 0, 0, 0, 0)
    info += struct.pack("<4I", *fields) + bytes(52)
    offset = 14 + len(info)
    head = b"BM" + struct.pack("<IHHI", offset + bgra.nbytes, 0, 0, offset)
    return head + info + bgra.tobytes()


def test_pieces_cover_every_pixel_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(modes, "PIECE_PIXELS", 7)
    for size in ((1, 20), (20, 1), (3, 5), (7, 7), (15, 2)):
        counts = np.zeros((size[1], size[0]), dtype=int)
        for left, top, right, bottom in pieces(size):
            counts[top:bottom, left:right] += 1
            assert (right - left) * (bottom - top) <= 7
        assert (counts == 1).all()


MODES = {
    "rgba.png": lambda: _alpha(scene(), None),
    "la.png": lambda: _alpha(scene(), None).convert("LA"),
    "grey16.png": lambda: Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54),
    "float.tiff": lambda: Image.fromarray(np.linspace(0, 1, 1200, dtype=np.float32)[None]),
    "int.tiff": lambda: Image.fromarray(np.arange(-600, 600, dtype=np.int32).reshape(30, 40)),
    "lab.tiff": lambda: Image.merge("LAB", scene().split()),
}


def _alpha(image: Image.Image, value: int | None) -> Image.Image:
    mask = np.random.default_rng(1).integers(0, 256, (image.height, image.width)).astype(np.uint8)
    image.putalpha(Image.fromarray(mask if value is None else np.full_like(mask, value)))
    return image


@pytest.mark.parametrize("name", MODES)
def test_pieces_make_no_difference(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    MODES[name]().save(tmp_path / name)
    whole, _ = read(tmp_path / name)
    monkeypatch.setattr(modes, "PIECE_PIXELS", 50)
    assert np.array_equal(read(tmp_path / name)[0], whole)
    monkeypatch.setattr(modes, "PIECE_PIXELS", 7)
    assert np.array_equal(read(tmp_path / name)[0], whole)


def test_alpha_that_is_zero_everywhere_shows_the_colours(tmp_path: Path):
    colours = np.asarray(scene())
    _alpha(scene(), 0).save(tmp_path / "x.png")
    _alpha(scene(), 0).save(tmp_path / "x.webp", lossless=True, exact=True)
    _alpha(scene(), 0).save(tmp_path / "x.tiff")
    (tmp_path / "x.bmp").write_bytes(bmp32(colours, 0))
    for name in ("x.png", "x.webp", "x.tiff", "x.bmp"):
        pixels, notes = read(tmp_path / name)
        assert np.array_equal(pixels, colours), name
        assert notes == ("transparent",)
    _alpha(scene(), 0).convert("LA").save(tmp_path / "la.png")
    assert np.array_equal(read(tmp_path / "la.png")[0][..., 0], np.asarray(scene().convert("L")))
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png", transparency=bytes([0, 0]))
    assert read(tmp_path / "p.png")[0].tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_one_pixel_that_is_seen_keeps_the_others_white(tmp_path: Path):
    image = _alpha(scene(), 0)
    image.putpixel((0, 0), (1, 2, 3, 255))
    image.save(tmp_path / "x.png")
    pixels, notes = read(tmp_path / "x.png")
    assert pixels[0, 0].tolist() == [1, 2, 3]
    assert (pixels.reshape(-1, 3)[1:] == 255).all()
    assert notes == ()


@pytest.mark.parametrize("masks", [True, False])
def test_a_bmp_of_32_bits_shows_its_colours(tmp_path: Path, masks: bool):
    colours = np.asarray(scene())
    (tmp_path / "x.bmp").write_bytes(bmp32(colours, 255, masks=masks))
    pixels, notes = read(tmp_path / "x.bmp")
    assert np.array_equal(pixels, colours)
    assert notes == ()


@pytest.mark.parametrize(
    ("highest", "note"), [(255, "8-bit"), (1023, "10-bit"), (4095, "12-bit"), (16383, "14-bit")]
)
@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_few_bits_in_sixteen_are_noted(tmp_path: Path, suffix: str, highest: int, note: str):
    grey = np.linspace(0, highest, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(grey).save(tmp_path / f"x.{suffix}")
    pixels, notes = read(tmp_path / f"x.{suffix}")
    assert notes == (note,)
    assert pixels.max() == int(highest / 257 + 0.5)
    Image.fromarray(grey * np.uint16(65535 // highest)).save(tmp_path / f"x.{suffix}")
    assert read(tmp_path / f"x.{suffix}")[1] == ()


def tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A grey TIFF, little-endian, of one strip."""
    height, width = values.shape
    if bits == 12:
        flat = values.ravel().astype(np.uint32)
        pairs = flat[0::2] << 12 | flat[1::2]
        data = np.stack([pairs >> 16, pairs >> 8 & 255, pairs & 255], 1).astype(np.uint8).tobytes()
    else:
        data = values.astype("<u2").tobytes()
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200)]
    entries += [(277, 1), (278, height), (279, len(data))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)
    return head.ljust(200, b"\0") + data


def test_a_tiff_of_twelve_bits_is_scaled_by_what_it_says(tmp_path: Path):
    (tmp_path / "x.tiff").write_bytes(tiff(np.array([[0, 2048, 4095, 1]]), 12, 1))
    pixels, notes = read(tmp_path / "x.tiff")
    assert pixels[0, :, 0].tolist() == [0, 128, 255, 0]
    assert notes == ()


def test_zero_is_white_where_a_tiff_says_so(tmp_path: Path):
    (tmp_path / "x.tiff").write_bytes(tiff(np.array([[0, 65535, 32896, 257]]), 16, 0))
    assert read(tmp_path / "x.tiff")[0][0, :, 0].tolist() == [255, 0, 127, 254]


@pytest.mark.parametrize(
    ("levels", "note"),
    [
        (np.full((20, 20), 7), "constant"),
        (np.tile([0, 3, 12, 16], (20, 5)), "dark"),
        (np.tile([250, 255, 252, 254], (20, 5)), "blank"),
        (np.tile([120, 121, 122, 121], (20, 5)), "blank"),
    ],
)
def test_images_that_show_nothing(levels: np.ndarray, note: str):
    image = Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    assert tone_notes(image) == (note,)
    image.paste((200, 30, 30), (0, 0, 10, 10))
    assert tone_notes(image) == ()


def test_channels_count_apart():
    red_and_blue = np.zeros((10, 10, 3), np.uint8)
    red_and_blue[..., 0] = 255
    assert tone_notes(Image.fromarray(red_and_blue)) == ("constant",)
    red_and_blue[:5, :, 2] = 255
    assert tone_notes(Image.fromarray(red_and_blue)) == ()


def test_the_audit_says_what_images_do_not_show(tmp_path: Path):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
    at = tmp_path / "data" / "a"
    _alpha(scene(), 0).save(at / "icon.png")
    Image.new("RGB", (70, 70), (255, 255, 255)).save(at / "white.png")
    grey = np.linspace(0, 4095, 70 * 70).astype(np.uint16).reshape(70, 70)
    Image.fromarray(grey).save(tmp_path / "data" / "b" / "camera.png")
    for k in range(2):
        shade = np.random.default_rng(k).integers(0, 17, (70, 70, 3)).astype(np.uint8)
        Image.fromarray(shade).save(tmp_path / "data" / "b" / f"night{k}.png")
    expected = {
        "1 image of one colour only (first: a/white.png).",
        "3 images nearly black (first: b/camera.png).",
        "1 image transparent everywhere, read as if opaque (first: a/icon.png).",
        "1 image in 16-bit grey with 12 bits in use, dark as they are: scale their values first"
        " (first: b/camera.png).",
    }
    found = audit(tmp_path / "data", cache=tmp_path / "cache")
    assert expected <= set(found.findings)
    # Remembered with the rest.
    assert audit(tmp_path / "data", cache=tmp_path / "cache").findings == found.findings


def test_decode_gives_the_image_alone(tmp_path: Path):
    scene().save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(decode(tmp_path / "x.png")), np.asarray(scene()))


@pytest.mark.parametrize("maximum", [1, 100, 254, 1000, 4095, 65534])
@pytest.mark.parametrize("letter", ["P5", "P6"])
def test_portable_maps_of_any_white_are_read_as_pillow_does(
    tmp_path: Path, letter: str, maximum: int
):
    rng = np.random.default_rng(maximum)
    values = rng.integers(0, maximum + 1, (5, 7, 3 if letter == "P6" else 1))
    values[0, 0], values[-1, -1] = 0, maximum
    data = values.astype(np.uint8 if maximum < 256 else ">u2").tobytes()
    path = tmp_path / "x.pnm"
    path.write_bytes(f"{letter}\n# by hand\n7 5\n{maximum}\n".encode() + data)
    with Image.open(path) as image:
        expected = np.asarray(image, dtype=np.float64)
    if expected.max() > 255:
        expected = np.floor(expected * 255 / 65535 + 0.5)
    pixels, notes = read(path)
    assert np.array_equal(pixels, np.broadcast_to(np.atleast_3d(expected), (5, 7, 3)))
    assert notes == ()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DecodeError, match="truncated"):
        decode(path)
