from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from secateurs.data.views import (
    NUM_DRAWS,
    Augmentation,
    ViewParameters,
    affine_maps,
    counter_uniforms,
    mirrored,
    normalise,
    render_views,
    view_parameters,
    views,
)


def _ids(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**63, num).astype(np.uint64)


def _smooth(num: int, side: int) -> torch.Tensor:
    coarse = torch.rand(num, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def test_uniforms_are_uniform_and_independent():
    draws = counter_uniforms(3, 5, _ids(4000), NUM_DRAWS)
    assert draws.min() >= 0
    assert draws.max() < 1
    for k in range(NUM_DRAWS):
        assert stats.kstest(draws[:, k], "uniform").pvalue > 1e-4
    correlation = np.corrcoef(draws.T) - np.eye(NUM_DRAWS)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 6}])
def test_seed_and_epoch_change_every_draw(change: dict[str, int]):
    base = {"seed": 3, "epoch": 5}
    ids = _ids(50)
    a = counter_uniforms(base["seed"], base["epoch"], ids, 4)
    merged = base | change
    b = counter_uniforms(merged["seed"], merged["epoch"], ids, 4)
    assert (a != b).all()


def test_a_view_depends_on_seed_epoch_and_image_alone():
    num, side = 13, 48
    pixels, ids = _smooth(num, side), _ids(num)
    sizes = np.stack([np.full(num, 60), np.arange(40, 40 + num)], axis=1)
    whole = views(pixels, ids, sizes, seed=1, epoch=2, size=32)
    order = np.random.default_rng(1).permutation(num)
    shuffled = views(pixels[order], ids[order], sizes[order], seed=1, epoch=2, size=32)
    assert torch.equal(shuffled, whole[order])
    for batch in (1, 2, 5):
        parts = [
            views(
                pixels[k : k + batch],
                ids[k : k + batch],
                sizes[k : k + batch],
                seed=1,
                epoch=2,
                size=32,
            )
            for k in range(0, num, batch)
        ]
        assert torch.equal(torch.cat(parts), whole)
    resumed = views(pixels[7:], ids[7:], sizes[7:], seed=1, epoch=2, size=32)
    assert torch.equal(resumed, whole[7:])
    assert not torch.equal(views(pixels, ids, sizes, seed=1, epoch=3, size=32), whole)


def test_one_thread_and_two_give_the_same_views():
    pixels, ids = _smooth(9, 48), _ids(9)
    sizes = np.full((9, 2), 48)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(views(pixels, ids, sizes, seed=0, epoch=0, size=40))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_parameters_stay_within_the_policy():
    policy = Augmentation()
    num = 3000
    sizes = np.tile(np.array([[400, 533], [300, 200], [100, 900]]), (num // 3, 1))
    drawn = view_parameters(_ids(num), sizes, seed=0, epoch=0, augmentation=policy)
    assert np.abs(drawn.angle_deg).max() <= 30
    assert (drawn.left >= 0).all()
    assert (drawn.top >= 0).all()
    assert (drawn.left + drawn.width <= sizes[:, 1] + 1e-9).all()
    assert (drawn.top + drawn.height <= sizes[:, 0] + 1e-9).all()
    fraction = drawn.width * drawn.height / sizes.prod(axis=1)
    square = np.arange(num) % 3 != 2
    assert fraction[square].min() >= 0.08 - 1e-9
    assert fraction.max() <= 1 + 1e-9
    shape = drawn.width / drawn.height
    assert shape.min() >= 3 / 4 - 1e-9
    assert shape.max() <= 4 / 3 + 1e-9
    assert 0.45 < drawn.flip.mean() < 0.55


def test_a_ratio_to_the_image_is_that_of_the_squashed_square():
    # Drawing in the image's own shape is drawing on a square and stretching the box.
    num = 600
    sizes = np.tile(np.array([[400, 533], [300, 200], [100, 900]]), (num // 3, 1))
    squares = np.full((num, 2), 100)
    policy = Augmentation(scale=(0.5, 1.0))
    relative = replace(policy, ratio_to="image")
    drawn = view_parameters(_ids(num), sizes, seed=0, epoch=0, augmentation=relative)
    expected = view_parameters(_ids(num), squares, seed=0, epoch=0, augmentation=policy)
    for name, side in (("left", 1), ("width", 1), ("top", 0), ("height", 0)):
        share = getattr(drawn, name) / sizes[:, side]
        assert np.allclose(share, getattr(expected, name) / 100, atol=1e-12), name
    same = view_parameters(_ids(num), squares, seed=0, epoch=0, augmentation=relative)
    assert np.array_equal(same.width, expected.width)


def test_a_whole_view_of_an_oblong_image_is_the_squashed_image():
    # No rotation and no crop leave the evaluation picture or its mirror, whatever the shape.
    policy = Augmentation(rotation_deg=0, scale=(1.0, 1.0), ratio_to="image")
    sizes = np.array([[400, 533], [300, 200], [100, 900]])
    drawn = view_parameters(_ids(3), sizes, seed=0, epoch=0, augmentation=policy)
    assert np.allclose(drawn.width, sizes[:, 1])
    assert np.allclose(drawn.height, sizes[:, 0])
    pixels = _smooth(3, 64)
    rendered = _render(pixels, drawn, sizes, 64)
    upright = pixels.permute(0, 3, 1, 2) / 255
    flipped = torch.from_numpy(drawn.flip)[:, None, None, None]
    expected = torch.where(flipped, upright.flip(3), upright)
    assert torch.allclose(rendered, expected, atol=1e-5)


def test_both_ways_in_two_epochs_and_independent_of_the_next_two():
    flips = [mirrored(_ids(4000), seed=3, epoch=epoch, chance=0.5) for epoch in range(4)]
    assert np.array_equal(flips[0], ~flips[1])
    assert np.array_equal(flips[2], ~flips[3])
    assert abs(np.corrcoef(flips[0], flips[2])[0, 1]) < 0.05
    drawn = view_parameters(
        _ids(4000), np.full((4000, 2), 9), seed=3, epoch=1, augmentation=Augmentation()
    )
    assert np.array_equal(drawn.flip, flips[1])


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("chance", [0.0, 0.2, 1.0])
def test_the_chance_of_a_mirror_image(chance: float, epoch: int):
    share = mirrored(_ids(4000), seed=0, epoch=epoch, chance=chance).mean()
    assert share == pytest.approx(chance, abs=0.0 if chance in (0.0, 1.0) else 0.02)


def _box(side_h: int, side_w: int, **changes: float) -> ViewParameters:
    values = {"angle_deg": 0.0, "left": 0.0, "top": 0.0, "width": side_w, "height": side_h}
    values |= changes
    flip = bool(values.pop("flip", 0))
    return ViewParameters(
        **{name: np.array([float(value)]) for name, value in values.items()},
        flip=np.array([flip]),
    )


def _render(pixels: torch.Tensor, parameters: ViewParameters, sizes: np.ndarray, size: int):
    maps = affine_maps(parameters, sizes)
    return render_views(pixels, maps, size=size, mean=(0, 0, 0), std=(1, 1, 1))


def test_the_whole_image_without_change_is_the_image():
    pixels = _smooth(1, 64)
    view = _render(pixels, _box(64, 64), np.array([[64, 64]]), 64)
    assert torch.allclose(view, pixels.permute(0, 3, 1, 2) / 255, atol=1e-6)


def test_flip_mirrors_columns():
    pixels = _smooth(1, 64)
    view = _render(pixels, _box(64, 64, flip=1), np.array([[64, 64]]), 64)
    assert torch.allclose(view, pixels.permute(0, 3, 1, 2).flip(3) / 255, atol=1e-6)


@pytest.mark.parametrize("angle", [-30.0, 12.5, 30.0])
def test_rotation_agrees_with_torchvision(angle: float):
    pixels = _smooth(1, 65)
    view = _render(pixels, _box(65, 65, angle_deg=angle), np.array([[65, 65]]), 65)
    image = pixels.permute(0, 3, 1, 2) / 255
    expected = reference.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    difference = (view - expected).abs()[..., 3:-3, 3:-3]
    # torchvision blends the outermost pixel with black; compare away from that seam.
    seam = (expected == 0).any(1) | (view == 0).any(1)
    spread = torch.nn.functional.max_pool2d(seam.float().unsqueeze(1), 5, 1, 2)[..., 3:-3, 3:-3]
    assert (difference * (1 - spread)).max() < 1e-3
    assert (expected == 0).all(1).float().mean() > 0.02


def test_crop_agrees_with_torchvision():
    pixels = _smooth(1, 64)
    view = _render(
        pixels, _box(64, 64, left=10, top=20, width=16, height=12), np.array([[64, 64]]), 48
    )
    image = pixels.permute(0, 3, 1, 2) / 255
    # The reference clamps at the crop's edge where ours sees the neighbours: compare inside.
    expected = reference.resized_crop(image, 20, 10, 12, 16, [48, 48], antialias=False)
    assert (view - expected).abs()[..., 4:-4, 4:-4].max() < 1e-3


def test_rotation_is_done_in_square_pixels_of_the_original():
    # A dot to the right of the centre of a wide image, turned by 90 degrees, must land as many
    # original pixels above the centre as it was to the right.
    height, width, side = 100, 200, 200
    pixels = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    pixels[0, 98:102, 118:122] = 255  # 20 original pixels right of the centre
    parameters = _box(height, width, angle_deg=90.0)
    view = _render(pixels, parameters, np.array([[height, width]]), 200)
    weight = view[0, 0]
    rows = torch.arange(200.0) + 0.5
    row = float((weight.sum(1) * rows).sum() / weight.sum()) * height / 200
    column = float((weight.sum(0) * rows).sum() / weight.sum()) * width / 200
    assert row == pytest.approx(height / 2 - 20, abs=0.5)
    assert column == pytest.approx(width / 2, abs=0.5)


def test_outside_the_image_is_black_before_normalisation():
    pixels = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    view = _render(pixels, _box(32, 32, angle_deg=30.0), np.array([[32, 32]]), 32)
    black, white = view == 0, (view - 1).abs() < 1e-6
    assert (black | white).all()
    assert black.any()
    assert white.any()


def test_normalise_is_torchvisions():
    pixels = _smooth(2, 16)
    expected = reference.normalize(
        pixels.permute(0, 3, 1, 2) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    assert torch.allclose(normalise(pixels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rotation_deg": -1.0}, "rotation_deg is out of range: -1.0"),
        ({"scale": (0.0, 1.0)}, "scale is out of range: 0.0; expected a number above 0, up to 1"),
        ({"ratio": (2.0, 1.0)}, "ratio: expected a range, its lower end first"),
        ({"flip": 1.5}, "flip is out of range: 1.5"),
        ({"ratio_to": "sender"}, "ratio_to must be square or image, got 'sender'"),
    ],
)
def test_bad_policies(options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        Augmentation(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_on_the_device_agree_with_the_cpu():
    pixels, ids = _smooth(5, 48), _ids(5)
    sizes = np.full((5, 2), 48)
    cpu = views(pixels, ids, sizes, seed=0, epoch=0, size=40)
    gpu = views(pixels.cuda(), ids, sizes, seed=0, epoch=0, size=40)
    assert torch.allclose(gpu.cpu(), cpu, atol=2e-3)
