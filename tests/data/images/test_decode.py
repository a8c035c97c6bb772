from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.images.decode import DecodeError, decode, decode_data, without_warnings
from secateurs.data.thread_map import in_order
from secateurs.errors import InputError


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """A smooth random picture that every format compresses into many bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (height // 2, width // 2, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height))


def grey_levels(path: Path) -> list[int]:
    pixels = np.asarray(decode(path))
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[0, :, 0].tolist()


def test_lossless_rgb_comes_back_exactly(tmp_path: Path):
    for suffix, options in {
        "png": {}, "bmp": {}, "tiff": {}, "webp": {"lossless": True}
    }.items():  # fmt: skip
        scene().save(tmp_path / f"x.{suffix}", **options)
        assert np.array_equal(np.asarray(decode(tmp_path / f"x.{suffix}")), np.asarray(scene()))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_in_either_byte_order(tmp_path: Path, order: str):
    ramp = np.array([[0, 128, 129, 257, 32896, 65406, 65535]], dtype=order)
    Image.fromarray(ramp).save(tmp_path / "x.tiff")
    expected = [int(value / 257 + 0.5) for value in ramp[0].tolist()]
    assert grey_levels(tmp_path / "x.tiff") == expected == [0, 0, 1, 1, 128, 254, 255]


def test_sixteen_bit_colour(tmp_path: Path):
    # A 16-bit RGB PNG, which Pillow reads and does not write.
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + struct.pack(">6H", 0, 32896, 65535, 257, 514, 771)
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert np.asarray(decode(tmp_path / "x.png")).tolist() == [[[0, 128, 255], [1, 2, 3]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([7e5, 7e5, 7e5], [0, 0, 0]),
    ],
)
def test_float_grey(tmp_path: Path, values: list[float], expected: list[int]):
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "x.tiff")
    assert grey_levels(tmp_path / "x.tiff") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 255], [0, 1, 255]), ([0, 257, 65535], [0, 1, 255]), ([-100, 0, 100], [0, 128, 255])],
)
def test_thirty_two_bit_grey(tmp_path: Path, values: list[int], expected: list[int]):
    Image.fromarray(np.array([values], dtype=np.int32)).save(tmp_path / "x.tiff")
    assert grey_levels(tmp_path / "x.tiff") == expected


def test_values_that_are_not_finite(tmp_path: Path):
    Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(DecodeError, match=r"unreadable .*not finite"):
        decode(tmp_path / "x.tiff")


def test_transparent_palettes(tmp_path: Path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "plain.png")
    assert np.asarray(decode(tmp_path / "plain.png"))[0, 0].tolist() == [0, 0, 0]
    image.save(tmp_path / "one.png", transparency=0)
    assert np.asarray(decode(tmp_path / "one.png")).tolist() == [
        [[255, 255, 255], [255, 0, 0], [0, 0, 255]]
    ]
    image.save(tmp_path / "each.png", transparency=bytes([0, 255, 128]))
    assert np.asarray(decode(tmp_path / "each.png"))[0].tolist() == [
        [255, 255, 255], [255, 0, 0], [127, 127, 255]
    ]  # fmt: skip


def test_a_level_or_a_colour_that_means_transparent(tmp_path: Path):
    Image.fromarray(np.array([[9, 200]], dtype=np.uint8)).save(tmp_path / "8.png", transparency=9)
    assert grey_levels(tmp_path / "8.png") == [255, 200]
    wide = np.array([[257, 65535, 514]], dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "16.png", transparency=257)
    assert grey_levels(tmp_path / "16.png") == [255, 255, 2]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    colour.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert np.asarray(decode(tmp_path / "rgb.png"))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_lab_is_converted(tmp_path: Path):
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (255, 128, 128)])
    lab.save(tmp_path / "x.tiff")
    assert np.asarray(decode(tmp_path / "x.tiff")).min() >= 253


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tiff"])
def test_the_first_frame_of_several(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (
        np.asarray(decode(tmp_path / f"x.{suffix}")).reshape(-1, 3).tolist() == [[255, 0, 0]] * 256
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path: Path, suffix: str, orientation: int):
    # Four quadrants tell all eight orientations apart.
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options.get(suffix, {}))
    got = np.asarray(decode(path)).astype(int)
    assert got.shape == upright.shape
    assert np.abs(got - upright).max() <= 8


def test_broken_exif_does_not_matter(tmp_path: Path):
    scene().save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(tmp_path / "x.jpg").size == (120, 80)


def test_the_content_counts_and_not_the_extension(tmp_path: Path):
    scene().save(tmp_path / "x.gif")
    (tmp_path / "x.gif").rename(tmp_path / "x.jpg")
    assert decode(tmp_path / "x.jpg").size == (120, 80)
    scene().save(tmp_path / "y.eps")
    (tmp_path / "y.eps").rename(tmp_path / "y.png")
    with pytest.raises(DecodeError, match=r"BMP, TIFF, GIF or PNM image; by its content: Post"):
        decode(tmp_path / "y.png")


FORMATS = {
    "jpg": {"quality": 95},
    "progressive.jpg": {"quality": 95, "progressive": True},
    "png": {},
    "webp": {"lossless": True},
    "lossy.webp": {},
    "bmp": {},
    "tiff": {},
    "deflated.tiff": {"compression": "tiff_adobe_deflate"},
    "lzw.tif": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.95])
def test_files_that_end_early(tmp_path: Path, suffix: str, fraction: float):
    path = tmp_path / f"x.{suffix}"
    scene().save(path, **FORMATS[suffix])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(DecodeError) as caught:
        decode(path)
    assert caught.value.reason == "truncated"
    assert str(caught.value).startswith(f"{path}: truncated (")
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_not_called_truncated(tmp_path: Path):
    scene().save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[100:200] = bytes(100)
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DecodeError) as caught:
        decode(tmp_path / "x.png")
    assert caught.value.reason == "unreadable"


def test_other_files_that_are_no_images(tmp_path: Path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"empty\.png: zero-byte .the file is empty"):
        decode(tmp_path / "empty.png")
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(DecodeError, match=r"page\.jpg: unreadable .not a JPEG"):
        decode(tmp_path / "page.jpg")
    with pytest.raises(InputError, match=r"none\.jpg: unreadable .No such file"):
        decode(tmp_path / "none.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DecodeError, match=r"folder\.jpg: unreadable"):
        decode(tmp_path / "folder.jpg")


def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scene(40, 30).save(tmp_path / "x.png")
    assert decode(tmp_path / "x.png", max_pixels=1200).size == (40, 30)

    def never(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(
        DecodeError, match=r"oversized \(40 x 30 pixels, more than the limit of 1199"
    ):
        decode(tmp_path / "x.png", max_pixels=1199)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_pillows_own_warning_and_error_about_bombs(tmp_path: Path, side: int):
    # One is in the range where Pillow warns, the other where it refuses by itself.
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:26] = side.to_bytes(4, "little") * 2
    (tmp_path / "x.bmp").write_bytes(data)
    with pytest.raises(DecodeError, match="oversized"):
        decode(tmp_path / "x.bmp")


def test_no_warning_leaks_from_any_thread_and_filters_are_restored(tmp_path: Path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    paths = [tmp_path / f"{k}.png" for k in range(40)]
    for path in paths:
        image.save(path, transparency=bytes([0, 255]))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = list(in_order(paths, decode, workers=4))
    assert len(images) == 40
    assert caught == []
    assert list(warnings.filters) == before


def test_half_read_results_may_be_let_go_in_one_of_their_own_threads():
    wanted, gone = threading.Event(), threading.Event()

    def job(number: int) -> int:
        if number == 1:
            wanted.wait(10)
            results.close()  # as a collection of garbage in this thread would
            gone.set()
        return number

    results = in_order(range(100), job, workers=1)
    assert next(results) == 0
    wanted.set()
    assert gone.wait(10)
    assert list(results) == []


def test_silence_ends_with_the_last_to_leave():
    with without_warnings():
        with without_warnings():
            warnings.warn("inner", stacklevel=1)
        warnings.warn("outer", stacklevel=1)
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", stacklevel=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "webp", "bmp", "ppm"])
def test_bytes_at_hand_give_what_the_file_gives(tmp_path: Path, suffix: str):
    path, exif = tmp_path / f"scene.{suffix}", Image.Exif()
    exif[0x0112] = 6
    scene().save(path, **({"exif": exif} if suffix in ("jpg", "tiff") else {}))
    data = path.read_bytes()
    assert decode_data(data).tobytes() == decode(path).tobytes()
    for bad in (data[: len(data) // 3], b"hello " * 9, b""):
        path.write_bytes(bad)
        with pytest.raises(DecodeError) as of_file:
            decode(path)
        with pytest.raises(DecodeError) as of_data:
            decode_data(bad, name="upload")
        assert (of_data.value.reason, of_data.value.detail) == (
            of_file.value.reason,
            of_file.value.detail,
        )
        assert str(of_data.value).startswith("upload: ")
