from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from secateurs.data.images import resolution
from secateurs.data.images.resolution import Working, eval_pixels, squash


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


@pytest.mark.parametrize("shape", [(70, 45), (300, 520), (20, 600), (900, 40)])
@pytest.mark.parametrize(("size", "share"), [(64, 0.9), (60, 0.95), (48, 1.0), (224, 0.875)])
def test_timm_s_recipes_give_timm_s_pixels(shape: tuple[int, int], size: int, share: float):
    data = pytest.importorskip("timm.data")
    image = picture(*shape)
    steps = data.create_transform((3, size, size), interpolation="bicubic", crop_pct=share)
    steps = transforms.Compose([step for step in steps.transforms if _is_of_pixels(step)])
    expected = np.asarray(steps(image)).astype(int)
    found = eval_pixels(
        image, crop=size, resize="crop", interpolation="bicubic", crop_share=share
    ).astype(int)
    assert np.abs(found - expected).max() <= 1


def _is_of_pixels(step: object) -> bool:
    return "Tensor" not in type(step).__name__ and "Normalize" not in type(step).__name__


def test_whole_images_are_squashed_as_the_recipe_says():
    image = picture(50, 30)
    found = eval_pixels(image, crop=20, resize="straight", interpolation="bicubic", crop_share=0.5)
    assert np.array_equal(found, np.asarray(image.resize((20, 20), Image.Resampling.BICUBIC)))
    assert not np.array_equal(found, eval_pixels(image, crop=20, resize="straight"))
    working = Working(24, 20, "straight", "bicubic")
    whole, seen = working.render(image)
    assert np.array_equal(whole, squash(image, 24, "bicubic")) and np.array_equal(seen, found)


def test_the_usual_recipe_keeps_its_identity():
    assert Working(256, 224, "crop").identity() == {"side": 256, "crop": 224, "resize": "crop"}
    others = [
        Working(256, 224, "crop", "bicubic"),
        Working(256, 224, "crop", "bilinear", 0.9),
        Working(256, 224, "straight", "bicubic"),
    ]
    assert len({str(one.identity()) for one in others}) == 3
    straight = Working(256, 224, "straight", "bilinear", 0.9)  # nothing is cut out
    assert straight.identity() == {"side": 256, "crop": 224, "resize": "straight"}


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
