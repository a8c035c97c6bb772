from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.images import decode as decoding_module
from secateurs.data.images import decoding_memory
from secateurs.data.images.decode import DecodeError, decode, decoding
from secateurs.data.images.decoding_memory import MemoryBudget, decode_bytes
from secateurs.data.thread_map import in_order

linux = pytest.mark.skipif(sys.platform != "linux", reason="measures peak memory by fork")

# Each file is decoded, audited and resized in a process of its own, which tells its peak.
MEASURE = """
import json, os, resource, sys
from pathlib import Path
from PIL import Image
Image.init()
from secateurs.data.images.decode import FORMATS, decoding, silence_libtiff
from secateurs.data.images.decoding_memory import decode_bytes
from secateurs.data.content_cache import measure
from secateurs.data.images.resolution import Working
silence_libtiff()
Working(32, 16, "crop").render(Image.new("RGB", (9, 9)))
for path in map(Path, sys.argv[1:]):
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        print(os.read(reader, 1000).decode(), flush=True)
        os.wait()
        continue
    resident = int(open("/proc/self/statm").read().split()[1]) * 4
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        bound = decode_bytes(image, file, path.stat().st_size)
    with decoding(path) as found:
        measure(bytes(32), found.image, found.notes)
        Working(256, 224, "crop").render(found.image)
        size = found.image.size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    os.write(writer, json.dumps([path.name, peak * 1024, bound, size]).encode())
    os._exit(0)
"""


def peaks(*paths: Path) -> list[tuple[str, int, int, list[int]]]:
    """(name, bytes at the peak, bytes estimated, size) of each file's decoding."""
    words = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in found] == [path.name for path in paths]
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def flat_png(path: Path, width: int, height: int, *, bits: int = 8, kind: int = 0) -> Path:
    """A PNG of zeros, whatever its size, in few bytes; `kind` is PNG's colour type."""
    row = 1 + (width * bits * {0: 1, 2: 3, 4: 2, 6: 4}[kind] + 7) // 8
    packer, body = zlib.compressobj(1), b""
    zeros = bytes(row * max(1, 2**20 // row))
    left = row * height
    while left > 0:
        body += packer.compress(zeros[: min(left, len(zeros))])
        left -= len(zeros)
    body += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return path


SIDE = 1500  # 2 million pixels: 9 MiB as RGB


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every way in which Pillow decodes."""
    folder = tmp_path_factory.mktemp("kinds")
    pixels = np.random.default_rng(0).integers(0, 256, (35, 35, 3)).astype(np.uint8)
    rgb = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    grey = rgb.convert("L")
    rgba = rgb.copy()
    rgba.putalpha(128)
    turned = Image.Exif()
    turned[0x0112] = 6
    paths: list[Path] = []

    def save(image: Image.Image, name: str, **options: object) -> None:
        image.save(folder / name, **options)
        paths.append(folder / name)

    save(rgb, "plain.jpg")
    save(rgb, "turned.jpg", exif=turned)
    save(rgb, "progressive.jpg", progressive=True, subsampling=0)
    save(rgb.convert("CMYK"), "cmyk.jpg", progressive=True)
    save(rgba, "alpha.png", compress_level=1)
    save(grey.convert("P"), "palette.png", compress_level=1, transparency=3)
    save(rgba.convert("LA"), "la.png", compress_level=1)
    save(grey, "grey.gif")
    save(rgb, "frames.gif", save_all=True, append_images=[grey])
    save(rgb, "lossy.webp", quality=30, method=0)
    save(rgba, "alpha.webp", quality=30, method=0)
    save(rgb, "plain.bmp")
    save(rgb, "plain.tiff")
    save(rgb, "turned.tiff", compression="tiff_lzw", exif=turned)
    save(rgb, "strip.tiff", compression="tiff_adobe_deflate", tiffinfo={278: SIDE})
    save(rgb, "jpeg.tiff", compression="jpeg")
    save(rgba, "alpha.tiff", compression="packbits")
    save(Image.fromarray(np.asarray(grey).astype(np.float32)), "float.tiff")
    save(Image.fromarray(np.asarray(grey).astype(np.int32) - 9), "int.tiff")
    save(grey.convert("1"), "fax.tiff", compression="group4")
    save(rgb.convert("LAB"), "lab.tiff", compression="tiff_lzw")
    paths.append(flat_png(folder / "grey16.png", SIDE, SIDE, bits=16))
    paths.append(flat_png(folder / "rgba16.png", SIDE, SIDE, bits=16, kind=6))
    return paths


@linux
def test_no_kind_of_file_takes_more_than_estimated(kinds: list[Path]):
    for name, peak, bound, size in peaks(*kinds):
        assert size == [SIDE, SIDE]
        assert peak <= bound, f"{name}: {peak / 2**20:.0f} of {bound / 2**20:.0f} MiB"
        # An estimate far above the truth would refuse pictures for nothing.
        assert bound <= 2 * peak + decoding_memory.MARGIN_BYTES, name


@linux
def test_a_picture_one_pixel_wide_takes_no_memory(tmp_path: Path):
    tall = flat_png(tmp_path / "tall.png", 1, 20_000)
    wide = flat_png(tmp_path / "wide.png", 3_000_000, 1)
    for name, peak, _, _ in peaks(tall, wide):
        assert peak < 100 * 2**20, name
    assert tall.stat().st_size < 300


def test_what_would_take_more_than_the_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = flat_png(tmp_path / "x.png", 400, 300, bits=16)
    assert decode(path).size == (400, 300)
    monkeypatch.setattr(decoding_memory, "BUDGET", MemoryBudget(33 * 2**20))
    assert decode(path).size == (400, 300)
    monkeypatch.setattr(decoding_memory, "BUDGET", MemoryBudget(32 * 2**20))
    with pytest.raises(
        DecodeError,
        match=r"oversized \(400 x 300 pixels of this kind of PNG take up to 3. MiB to decode, more",
    ):
        decode(path)


@pytest.mark.parametrize(
    ("width", "height", "bits", "kind", "taken"),
    [(9450, 9450, 16, 0, True), (9450, 9450, 16, 6, True), (1, 89_000_000, 8, 0, False)],
)
def test_the_largest_pictures_against_the_limit(
    tmp_path: Path, width: int, height: int, bits: int, kind: int, taken: bool
):
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x"))
    with path.open("rb") as file, Image.open(file) as image:
        assert (decode_bytes(image, file, 100) <= decoding_memory.DECODE_BYTES) == taken


def test_threads_share_the_budget():
    budget, inside, highest = MemoryBudget(100), 0, 0
    lock = threading.Lock()

    def work(num_bytes: int) -> int:
        nonlocal inside, highest
        with budget.reserve(num_bytes):
            with lock:
                inside += num_bytes
                highest = max(highest, inside)
            time.sleep(0.001)
            with lock:
                inside -= num_bytes
        return num_bytes

    amounts = [30, 60, 100, 10, 45] * 8
    assert list(in_order(amounts, work, workers=6)) == amounts
    assert 60 <= highest <= 100


def test_what_exceeds_the_budget_runs_alone_and_a_block_within_a_block_does_not_wait():
    budget = MemoryBudget(10)
    with budget.reserve(50), budget.reserve(50):
        entered = threading.Event()

        def other() -> None:
            with budget.reserve(1):
                entered.set()

        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    thread.join()


def test_the_memory_of_a_picture_is_held_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    held: list[int] = []

    class Watched(MemoryBudget):
        def used(self) -> int:
            return self._used

    budget = Watched(2**30)
    monkeypatch.setattr(decoding_memory, "BUDGET", budget)
    path = flat_png(tmp_path / "x.png", 2000, 1000)
    with decoding(path):
        held.append(budget.used())
    with pytest.raises(RuntimeError), decoding(path):
        raise RuntimeError
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DecodeError):
        decode(path)
    assert 2000 * 1000 * 5 < held[0] < 60 * 2**20
    assert budget.used() == 0


def test_a_large_file_of_nothing_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    started = time.monotonic()
    with pytest.raises(DecodeError, match=r"oversized \(3072 MiB, more than the limit of 1024 MiB"):
        decode(path)
    with path.open("wb") as file:
        file.truncate(900 * 2**20)
    with pytest.raises(DecodeError, match="by its content: zero bytes only"):
        decode(path)
    assert time.monotonic() - started < 5
    monkeypatch.setattr(decoding_module, "MAX_FILE_BYTES", 10)
    path.write_bytes(bytes(11))
    with pytest.raises(DecodeError, match="oversized"):
        decode(path)


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def metadata(kind: str, num_bytes: int) -> bytes:
    """An image of 64 x 64 with `num_bytes` of metadata before its pixels."""
    if kind == "jpeg":
        segment = b"\xff\xed" + struct.pack(">H", 65535) + bytes(65533)
        return b"\xff\xd8" + segment * (num_bytes // len(segment) + 1) + jpeg()[2:]
    if kind == "png":
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "PNG")
        data = file.getvalue()
        return data[:33] + chunk(b"tEXt", b"x\0" + b"y" * num_bytes) + data[33:]
    count = num_bytes // 4  # strips, as of a TIFF with one for each row
    entry = struct.pack("<HHII", 273, 4, count, 8 + 2 + 12 + 4)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + bytes(num_bytes)


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_what_stands_beside_the_pixels_is_bounded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding_memory, "METADATA_BYTES", 2**17)
    path = tmp_path / "x"
    path.write_bytes(metadata(kind, 2**18))
    with pytest.raises(DecodeError, match=r"oversized \(. MiB beside the pixels, more than the"):
        decode(path)
    if kind != "tiff":
        path.write_bytes(metadata(kind, 1000))
        assert decode(path).size == (64, 64)


def test_a_jpeg_of_many_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg(progressive=True))
    assert decode(path).size == (64, 64)
    monkeypatch.setattr(decoding_memory, "MAX_SCANS", 5)
    with pytest.raises(DecodeError, match=r"oversized \(more than 5 scans\)"):
        decode(path)
    path.write_bytes(jpeg())
    assert decode(path).size == (64, 64)


def test_large_images_that_only_python_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding_memory, "MAX_PYTHON_PIXELS", 5)
    (tmp_path / "x.pgm").write_bytes(b"P2 3 2 9\n0 1 2 3 4 5\n")
    with pytest.raises(DecodeError, match=r"oversized \(6 pixels, more than the limit of 5 for"):
        decode(tmp_path / "x.pgm")
    (tmp_path / "x.pgm").write_bytes(b"P2 3 1 9\n0 1 2\n")
    assert decode(tmp_path / "x.pgm").size == (3, 1)
    (tmp_path / "y.pgm").write_bytes(b"P5 3 2 9\n\0\1\2\3\4\5")
    assert decode(tmp_path / "y.pgm").size == (3, 2)
