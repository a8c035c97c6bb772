from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from secateurs.data.images import resolution
from secateurs.data.images.resolution import eval_pixels, squash


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("shape", [(20, 600), (600, 20), (3, 500), (1700, 100), (100, 1650)])
def test_long_pictures_are_cropped_first_with_the_same_result(shape: tuple[int, int]):
    image = picture(*shape)
    steps = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    expected = np.asarray(steps(image)).astype(int)
    found = eval_pixels(image, crop=224, resize="crop").astype(int)
    assert found.shape == (224, 224, 3)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (1, 2_000_000), (3_000_000, 2)])
def test_extreme_shapes_give_the_right_colours(shape: tuple[int, int]):
    image = Image.new("RGB", shape, (10, 200, 30))
    half = (shape[0] // 2, 0) if shape[0] > shape[1] else (0, shape[1] // 2)
    image.paste((200, 10, 30), (*half, *shape))
    for resize in ("straight", "crop"):
        pixels = eval_pixels(image, crop=16, resize=resize)
        if shape[0] > shape[1]:
            pixels = pixels.transpose(1, 0, 2)
        if resize == "straight":  # the colour changes halfway
            assert (pixels[0] == (10, 200, 30)).all()
            assert (pixels[-1] == (200, 10, 30)).all()
        assert (np.abs(pixels.astype(int).sum(axis=2) - 240) <= 2).all()


def test_columns_first_where_rows_would_be_long(monkeypatch: pytest.MonkeyPatch):
    image = picture(5, 4000)
    expected = squash(image, 64).astype(int)
    monkeypatch.setattr(resolution, "PASS_PIXELS", 64 * 100)
    assert np.abs(squash(image, 64).astype(int) - expected).max() <= 1
    monkeypatch.setattr(resolution, "LONG_SIDE_PX", 2000)
    smooth = image.resize((5, 20)).resize((5, 4000))
    assert np.abs(squash(smooth, 16).astype(int) - np.asarray(smooth.resize((16, 16)))).max() <= 40
