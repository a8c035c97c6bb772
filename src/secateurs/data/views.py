"""Augmented views: a view is a pure function of (seed, epoch, image), rendered in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.limits import check_fields

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_TRIES = 10
# Images rendered at a time on a CPU: four times as fast as 400 at once, which leaves the caches.
CPU_CHUNK = 32
# Draws a view consumes: angle, (area, ratio) for each try, top, left, flip.
NUM_DRAWS = 1 + 2 * CROP_TRIES + 3


@dataclass(frozen=True)
class Augmentation:
    """The paper's augmentation: rotation, then a random resized crop, then a flip.

    `rotation_deg` is the largest angle either way; `scale` the range of the crop's share of the
    image's area; `ratio` the range of its width over height, with `ratio_to` "image" divided by
    the image's own (so that a view is squashed as an evaluation resized straight to a square is);
    `flip` a probability (see `mirrored`).
    """

    rotation_deg: float = 30.0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    ratio_to: Literal["square", "image"] = "square"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("scale", "ratio"):
            pair = getattr(self, name)
            if len(pair) != 2 or pair[0] > pair[1]:
                raise InputError(f"{name}: expected a range, its lower end first, got {pair}")
        if self.ratio_to not in ("square", "image"):
            raise InputError(f"ratio_to must be square or image, got {self.ratio_to!r}")

    @property
    def whole(self) -> bool:
        """Whether views are whole images, mirrored or not: neither turned nor cropped."""
        return self.rotation_deg == 0 and self.scale[0] == 1


@dataclass(frozen=True)
class ViewParameters:
    """Where each view looks, in pixels of the original image.

    `angle_deg`, `left`, `top`, `width`, `height` are float64 of shape (n,), `flip` is bool (n,).
    The crop box lies in the frame of the image after rotation about its centre.
    """

    angle_deg: NDArray[np.float64]
    left: NDArray[np.float64]
    top: NDArray[np.float64]
    width: NDArray[np.float64]
    height: NDArray[np.float64]
    flip: NDArray[np.bool_]


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words.
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def counter_uniforms(
    seed: int, epoch: int, ids: NDArray[np.uint64], num_draws: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of shape (n, num_draws) that depend on (seed, epoch, id) alone.

    SplitMix64 with the mixed key as its starting state. `ids` are 64-bit content ids.

    >>> a = counter_uniforms(1, 0, np.array([5, 6], dtype=np.uint64), 3)
    >>> b = counter_uniforms(1, 0, np.array([6], dtype=np.uint64), 3)
    >>> bool((a[1] == b[0]).all())
    True
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = _mix(np.asarray([seed & (2**64 - 1)], dtype=np.uint64) + golden)
        state = _mix(state ^ (np.uint64(epoch) * golden + np.uint64(1)))
        state = _mix(state ^ ids.astype(np.uint64))[:, None]  # (n, 1)
        steps = np.arange(1, num_draws + 1, dtype=np.uint64)[None, :] * golden
        words = _mix(state + steps)  # (n, num_draws)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def view_parameters(
    ids: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation,
) -> ViewParameters:
    """Draw the views of one epoch for the images with these content ids.

    `ids` (n,) and `sizes` (n, 2) as height, width. The crop follows torchvision's
    RandomResizedCrop: ten tries at an area and a shape that fit, else the largest central crop
    whose shape is within `ratio`; positions are continuous.
    """
    draws = counter_uniforms(seed, epoch, ids, NUM_DRAWS)
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    low_area, high_area = augmentation.scale
    low_ratio, high_ratio = augmentation.ratio
    area = low_area + (high_area - low_area) * draws[:, 1 : 1 + 2 * CROP_TRIES : 2]
    own = width / height if augmentation.ratio_to == "image" else np.ones(len(ids))
    log_low, log_high = np.log(low_ratio), np.log(high_ratio)
    shape = np.exp(log_low + (log_high - log_low) * draws[:, 2 : 2 + 2 * CROP_TRIES : 2])
    shape = shape * own[:, None]
    target = area * (height * width)[:, None]
    widths, heights = np.sqrt(target * shape), np.sqrt(target / shape)  # (n, tries)
    fits = (widths <= width[:, None]) & (heights <= height[:, None])
    first = fits.argmax(axis=1)
    rows = np.arange(len(ids))
    # The central fallback: the whole image, cut where its shape is outside the range.
    fallback_width = np.minimum(width, height * high_ratio * own)
    fallback_height = np.minimum(height, width / (low_ratio * own))
    found = fits.any(axis=1)
    crop_width = np.where(found, widths[rows, first], fallback_width)
    crop_height = np.where(found, heights[rows, first], fallback_height)
    spare_width, spare_height = width - crop_width, height - crop_height
    return ViewParameters(
        angle_deg=(2 * draws[:, 0] - 1) * augmentation.rotation_deg,
        left=spare_width * np.where(found, draws[:, -2], 0.5),
        top=spare_height * np.where(found, draws[:, -3], 0.5),
        width=crop_width,
        height=crop_height,
        flip=mirrored(ids, seed=seed, epoch=epoch, chance=augmentation.flip),
    )


def mirrored(ids: NDArray[np.uint64], *, seed: int, epoch: int, chance: float) -> NDArray[np.bool_]:
    """Which images (n,) are mirrored in an epoch, each with this chance.

    An odd epoch uses the complement of the even one's draw (antithetic variates), so that at one
    half every image is seen both ways in two epochs.

    >>> ids = np.arange(5, dtype=np.uint64)
    >>> even, odd = (mirrored(ids, seed=0, epoch=epoch, chance=0.5) for epoch in (6, 7))
    >>> bool((even != odd).all())
    True
    """
    draws = counter_uniforms(seed, epoch - epoch % 2, ids, NUM_DRAWS)[:, -1]
    return (1 - draws if epoch % 2 else draws) < chance


def affine_maps(parameters: ViewParameters, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Maps (n, 2, 3) from output coordinates in [-1, 1] to source coordinates in [-1, 1].

    A point of the output lies in the crop box, the box in the rotated frame, and rotating back
    about the centre finds the source. Pixels are square in the original, so rotation is done in
    its pixels and the result divided by half its width and height.
    """
    half_height, half_width = sizes[:, 0] / 2.0, sizes[:, 1] / 2.0
    mirror = np.where(parameters.flip, -1.0, 1.0)
    scale_x = mirror * parameters.width / 2
    scale_y = parameters.height / 2
    centre_x = parameters.left + parameters.width / 2 - half_width
    centre_y = parameters.top + parameters.height / 2 - half_height
    turn = np.deg2rad(parameters.angle_deg)
    cos, sin = np.cos(turn), np.sin(turn)
    # Image rows grow downwards: this turns the picture counter-clockwise by angle_deg.
    row_x = np.stack([cos * scale_x, -sin * scale_y, cos * centre_x - sin * centre_y], axis=1)
    row_y = np.stack([sin * scale_x, cos * scale_y, sin * centre_x + cos * centre_y], axis=1)
    return np.stack([row_x / half_width[:, None], row_y / half_height[:, None]], axis=1)


def normalise(
    pixels: Tensor,
    *,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """Pixels (n, h, w, 3) uint8 to a normalised float32 batch (n, 3, h, w)."""
    images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    return _standardise(images, mean, std)


def _standardise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    # Sent without waiting for a graphics card, which is at work.
    centre, spread = (
        torch.tensor(values).to(images.device, non_blocking=True).view(1, 3, 1, 1)
        for values in (mean, std)
    )
    return (images - centre) / spread


def render_views(
    pixels: Tensor,
    maps: NDArray[np.float64],
    *,
    size: int = 224,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """Sample views (n, 3, size, size), float32 and normalised, on the device of `pixels`.

    `pixels` (n, s, s, 3) uint8 holds whole images squashed to a square; `maps` (n, 2, 3) from
    `affine_maps`. Bilinear; black outside the image, as when a picture is rotated.
    """
    device = pixels.device
    images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255  # (n, 3, s, s)
    steps = (torch.arange(size, device=device, dtype=torch.float32) * 2 + 1) / size - 1
    theta = torch.from_numpy(maps).to(torch.float32).to(device, non_blocking=True)
    # Element by element rather than by a batched product, whose rounding may vary with the batch.
    x, y = steps.view(1, 1, size), steps.view(1, size, 1)
    a, b, c = (theta[:, 0, k].view(-1, 1, 1) for k in range(3))
    source_x = (a * x + b * y) + c  # (n, size, size)
    a, b, c = (theta[:, 1, k].view(-1, 1, 1) for k in range(3))
    source_y = (a * x + b * y) + c
    grid = torch.stack([source_x, source_y], dim=-1)
    sampled = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    # Border padding and a mask, so that the outermost half pixel is not mixed with black.
    inside = (source_x.abs() <= 1) & (source_y.abs() <= 1)
    return _standardise(sampled * inside.unsqueeze(1), mean, std)


def views(
    pixels: Tensor,
    ids: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    augmentation: Augmentation | None = None,
    size: int = 224,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """Augmented views (n, 3, size, size) of a batch; each depends on (seed, epoch, id) alone.

    `pixels` (n, s, s, 3) uint8 squashed images, `ids` (n,) content ids, `sizes` (n, 2) original
    height and width. The same image gives bit-identical views in any batch and any order.
    """
    chosen = augmentation or Augmentation()
    parameters = view_parameters(ids, sizes, seed=seed, epoch=epoch, augmentation=chosen)
    maps = affine_maps(parameters, sizes)
    rendered = torch.empty(len(ids), 3, size, size, device=pixels.device)
    step = CPU_CHUNK if pixels.device.type == "cpu" else len(ids)
    for first in range(0, len(ids), max(step, 1)):
        rows = slice(first, first + step)
        rendered[rows] = render_views(pixels[rows], maps[rows], size=size, mean=mean, std=std)
    return rendered
