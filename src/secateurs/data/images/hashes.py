"""Fingerprints of pixels: a digest for identical images, a perceptual hash for similar ones."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.images.modes import pieces
from secateurs.data.images.resolution import resized

THUMBNAIL_SIDE = 32
HASH_SIDE = 8
BLOCK = 512  # rows of pairs compared at once
PLAIN_LEVELS = 1.5  # a thumbnail whose values spread less than this has no picture in it


def pixel_digest(image: Image.Image) -> bytes:
    """32 bytes that are equal for two RGB images exactly when size and every pixel are."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    for box in pieces(image.size):  # rows, so that no second copy is held
        digest.update(image.crop(box).tobytes())
    return digest.digest()


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """The whole RGB image squashed to (32, 32, 3) uint8, each pixel the mean of its area."""
    side = THUMBNAIL_SIDE
    return np.asarray(resized(image, (side, side), Image.Resampling.BOX), dtype=np.uint8)


def _cosines() -> NDArray[np.float64]:
    # The first rows of the orthonormal DCT-II, (HASH_SIDE, THUMBNAIL_SIDE).
    row = np.arange(HASH_SIDE)[:, None]
    column = 2 * np.arange(THUMBNAIL_SIDE)[None, :] + 1
    matrix = np.cos(np.pi * row * column / (2 * THUMBNAIL_SIDE)) * np.sqrt(2 / THUMBNAIL_SIDE)
    matrix[0] /= np.sqrt(2)
    return matrix


def perceptual_hash(thumb: NDArray[np.uint8]) -> int:
    """The 64-bit DCT hash (pHash; Zauner 2010) of a thumbnail (32, 32, 3) uint8.

    A bit says whether one of the 8 x 8 lowest frequencies of the luma exceeds their median.
    """
    luma = thumb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    cosines = _cosines()
    # Rounded, so that a plain image gives zeros and not the signs of rounding errors.
    low = np.round(cosines @ luma @ cosines.T, 3)
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail_similarity(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlation (n,) in -1..1 of thumbnails (n, 32, 32, 3) over all pixels and channels.

    Each channel's mean is taken out first, so brighter and more contrasty copies still score 1.
    Two plain thumbnails have nothing to correlate: they score 1 when their colours differ by at
    most 4 levels of 255, else 0. A plain one and another score 0.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    colour = np.abs(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))).max(axis=1)  # (n,)
    a -= a.mean(axis=(1, 2), keepdims=True)
    b -= b.mean(axis=(1, 2), keepdims=True)
    spread_a, spread_b = (np.sqrt((x * x).mean(axis=(1, 2, 3))) for x in (a, b))
    plain_a, plain_b = spread_a < PLAIN_LEVELS, spread_b < PLAIN_LEVELS
    product = np.maximum(spread_a * spread_b, np.finfo(np.float64).tiny)
    correlation = (a * b).mean(axis=(1, 2, 3)) / product
    correlation = np.where(plain_a | plain_b, 0.0, correlation)
    return np.where(plain_a & plain_b & (colour <= 4), 1.0, correlation)


def close_pairs(
    hashes: NDArray[np.uint64],
    thumbs: NDArray[np.uint8],
    *,
    max_bits: int,
    min_similarity: float,
) -> list[tuple[int, int]]:
    """All pairs i < j that are similar by their hashes (n,) and their thumbnails (n, 32, 32, 3).

    Similar are hashes that differ in at most `max_bits` of 64 bits, with thumbnails of at least
    `min_similarity`: the hash alone compares outlines, and does not separate dark garments.
    Exact over all pairs: XOR and popcount in blocks, thumbnails only where the hashes agree.
    """
    num = len(hashes)
    found: list[tuple[int, int]] = []
    columns = np.arange(num)
    for first in range(0, num, BLOCK):
        rows = np.arange(first, min(first + BLOCK, num))
        bits = np.bitwise_count(hashes[rows, None] ^ hashes[None, :])  # (rows, n)
        i, j = np.nonzero((bits <= max_bits) & (columns[None, :] > rows[:, None]))
        for start in range(0, len(i), BLOCK):
            left, right = rows[i[start : start + BLOCK]], j[start : start + BLOCK]
            close = thumbnail_similarity(thumbs[left], thumbs[right]) >= min_similarity
            found += zip(left[close].tolist(), right[close].tolist(), strict=True)
    return found
