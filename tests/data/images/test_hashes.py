from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from secateurs.data.audit import NEAR_BITS, NEAR_SIMILARITY
from secateurs.data.images.hashes import (
    close_pairs,
    perceptual_hash,
    pixel_digest,
    thumbnail,
    thumbnail_similarity,
)


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A smooth random picture, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def found(*images: Image.Image) -> list[tuple[int, int]]:
    thumbs = np.stack([thumbnail(image) for image in images])
    hashes = np.array([perceptual_hash(thumb) for thumb in thumbs], dtype=np.uint64)
    return close_pairs(hashes, thumbs, max_bits=NEAR_BITS, min_similarity=NEAR_SIMILARITY)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_is_scipys_transform_against_its_median(seed: int):
    thumb = thumbnail(scene(seed))
    luma = thumb @ np.array([0.299, 0.587, 0.114])
    low = dctn(luma, norm="ortho")[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert perceptual_hash(thumb) == int(bits, 2)


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_found(seed: int):
    image = scene(seed)
    for copy in (
        jpeg(image, 30),
        image.resize((80, 60)),
        image.resize((400, 200)),
        ImageEnhance.Brightness(image).enhance(0.8),
        ImageEnhance.Contrast(image).enhance(0.7),
        image.crop((1, 1, 159, 119)),
    ):
        assert found(image, copy) == [(0, 1)]


def test_different_pictures_and_colours_are_not():
    assert found(*(scene(seed) for seed in range(40))) == []
    red, green, blue = scene(0).split()
    assert found(scene(0), Image.merge("RGB", (blue, red, green))) == []
    assert found(scene(0), scene(0).transpose(Image.Transpose.ROTATE_180)) == []


def test_plain_pictures_are_alike_when_their_colours_are():
    white, nearly, red = (Image.new("RGB", (64, 64), c) for c in ("white", "#fefdfe", "red"))
    assert found(white, nearly, red, scene(0)) == [(0, 1)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_pairs_are_all_pairs_and_do_not_depend_on_order(seed: int, num: int):
    generator = np.random.default_rng(seed)
    # Few distinct hashes, so that many pairs are close.
    hashes = generator.integers(0, 2**12, num).astype(np.uint64)
    thumbs = np.stack([thumbnail(scene(int(k))) for k in generator.integers(0, 3, num)])
    expected = {
        (i, j)
        for i in range(num)
        for j in range(i + 1, num)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 4
        and np.array_equal(thumbs[i], thumbs[j])
    }
    pairs = close_pairs(hashes, thumbs, max_bits=4, min_similarity=0.99)
    assert pairs == sorted(expected)
    order = generator.permutation(num)
    shuffled = close_pairs(hashes[order], thumbs[order], max_bits=4, min_similarity=0.99)
    assert {tuple(sorted((int(order[i]), int(order[j])))) for i, j in shuffled} == expected


def test_more_images_than_a_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("secateurs.data.images.hashes.BLOCK", 7)
    hashes = np.zeros(20, dtype=np.uint64)
    thumbs = np.stack([thumbnail(scene(0))] * 20)
    pairs = close_pairs(hashes, thumbs, max_bits=0, min_similarity=0.9)
    assert pairs == [(i, j) for i in range(20) for j in range(i + 1, 20)]
    assert close_pairs(hashes, thumbs, max_bits=-1, min_similarity=0.9) == []


def test_similarity_is_the_correlation_and_symmetric():
    left = np.stack([thumbnail(scene(k)) for k in range(3)])
    right = np.stack([thumbnail(scene(k + 1)) for k in range(3)])
    got = thumbnail_similarity(left, right)
    for k in range(3):
        a, b = (x[k].astype(float) - x[k].mean(axis=(0, 1)) for x in (left, right))
        assert got[k] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert np.allclose(got, thumbnail_similarity(right, left))


def test_the_digest_is_of_size_and_pixels():
    image = Image.new("RGB", (6, 4), "red")
    assert pixel_digest(image) == pixel_digest(image.copy())
    assert pixel_digest(image) != pixel_digest(Image.new("RGB", (4, 6), "red"))
    other = image.copy()
    other.putpixel((5, 3), (254, 0, 0))
    assert pixel_digest(image) != pixel_digest(other)
