"""Which files are images: by the end of their name, and by the bytes that they begin with."""

from __future__ import annotations

import re
from pathlib import Path

from secateurs.files import open_regular


def _endings(text: str) -> frozenset[str]:
    return frozenset(text.split())


EXTENSIONS = _endings(
    ".jpg .jpeg .jpe .jfif .jif .pjpeg .pjp .png .apng .webp .bmp .dib .tif .tiff "
    ".pbm .pgm .ppm .pnm"
)
# Images of formats that are not read.
OTHER_IMAGES = _endings(
    ".gif .heic .heif .hif .avif .jxl .jp2 .j2k .jpf .jpx .psd .svg .svgz .ico .cur "
    ".tga .exr .hdr .dds .pcx .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .raw .qoi"
)
# Files that are what they are called, and need not be looked into.
_NO_IMAGES = _endings(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .html .htm .log .py .ipynb .npy "
    ".npz .pkl .pt .pth .db .ini .zip .gz .tar .7z .rar .mp4 .mov .avi .pdf .doc "
    ".docx .xls .xlsx .parquet .h5 .mat .xmp .aae .url .lnk .toml .cfg .sh .bat .exe "
    ".dll .so"
)
_READ = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "PNM")
HEAD = 512  # bytes that tell a format

_EXTENSION = re.compile(r"\.[a-z0-9_~!-]*[a-z][a-z0-9_~!-]*")
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s")
_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
    b"crx ": "Canon raw",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"qt  ": "QuickTime video",
}
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DirectDraw surface"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"IIRO", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"\0\0\x01\0", "icon"),
    (b"\0\0\x02\0", "cursor"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"Rar!", "RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"\0\x05\x16\x07", "AppleDouble file"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF", "HDF5 file"),
)
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML page"), (b"<html", "HTML page"))
_AS_EXTENSION = {"HEIC": ".heic", "HEIF": ".heif", "AVIF": ".avif", "JPEG XL": ".jxl"} | {
    "JPEG 2000": ".jp2",
    "Photoshop": ".psd",
    "SVG": ".svg",
    "GIF": ".gif",
}


def extension(name: str) -> str:
    """The extension of a file name in lower case; empty when it has none.

    What follows the last dot is none when it has no letter or has a space, as in the time of day.

    >>> extension("a/B.JPG"), extension("Screenshot 10.32.15"), extension("v1.2 final")
    ('.jpg', '', '')
    """
    suffix = Path(name.rstrip(" .")).suffix.lower()
    return suffix if _EXTENSION.fullmatch(suffix) else ""


def has_image_name(name: str) -> bool:
    """Whether a file name ends as those of images that are read."""
    return extension(name) in EXTENSIONS


def true_format(head: bytes) -> str | None:
    """The format that a file is in, from the first bytes of it, whatever its name; None unknown.

    >>> true_format(b"\\x00\\x00\\x00\\x1cftypheic\\x00\\x00\\x00\\x00mif1heic")
    'HEIC'
    """
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "AVI video", b"WAVE": "WAV sound"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for mark, name in _MARKUP if text[:1] == b"<" and mark in text), None)


def _brand(head: bytes) -> str:
    # The major brand, then those that the file is compatible with; the first that says most.
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    named = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    exact = [name for name in named if name != "HEIF"]
    return next(iter(exact), next(iter(named), "MP4 video"))


def head_of(path: Path) -> bytes:
    """The first bytes of a regular file; none when it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD)
    except OSError:
        return b""


def hidden_kind(path: Path) -> str | None:
    """The format of an image whose name does not end as an image's; None when it is no image."""
    if extension(path.name) in _NO_IMAGES:
        return None
    found = true_format(head_of(path))
    return found if found in _READ or found in _AS_EXTENSION else None


def is_read(kind: str) -> bool:
    """Whether files of a format are images of a set; GIF is none, as most are films or drawings."""
    return kind in _READ


def as_extension(kind: str) -> str:
    """The usual extension of a format that is not read.

    >>> as_extension("AVIF")
    '.avif'
    """
    return _AS_EXTENSION[kind]
