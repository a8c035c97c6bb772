"""Images with the statistics of photographs, made from a seed: edges, textures and a 1/f spectrum.

Each image is a dead-leaves scene (Lee, Mumford and Huang, 2001): opaque discs and boxes whose sizes
follow a power law cover one another. Every leaf has its own colour, brightness gradient and grain,
and over all lies noise whose amplitude falls as one over the frequency. A class differs from the
others in the orientation and spacing of its leaves' stripes and in its palette, so that there is
something to learn.

    python benchmarks/coverage/natural_images.py FOLDER
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("bark", "fern", "gravel", "lichen", "moss", "reed")
NUM_LEAVES = 250
SMALLEST, LARGEST = 4.0, 90.0  # pixels, half the width of a leaf

Array = NDArray[np.float64]


def pink_noise(size: int, random: np.random.Generator) -> Array:
    """Noise (size, size) whose amplitude is 1/f, of mean 0 and standard deviation 1."""
    fx, fy = np.fft.fftfreq(size), np.fft.rfftfreq(size)
    frequency = np.hypot(fx[:, None], fy[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) / frequency
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise - noise.mean()) / noise.std()


def leaf_radius(random: np.random.Generator) -> float:
    """A size with density r**-3 between the smallest and the largest."""
    low, high = SMALLEST**-2, LARGEST**-2
    return float((low - random.uniform() * (low - high)) ** -0.5)


def scene(kind: int, random: np.random.Generator, *, size: int = 256) -> NDArray[np.uint8]:
    """One image (size, size, 3) of a class from 0 to 5."""
    y, x = np.mgrid[:size, :size].astype(float)
    palette_angle = 2 * math.pi * kind / len(CLASSES)
    stripes_angle = math.pi * kind / len(CLASSES)
    spacing = 6.0 + 3.0 * kind
    image = np.full((size, size, 3), 0.45)
    grain = pink_noise(size, random)
    for _ in range(NUM_LEAVES):
        radius = leaf_radius(random)
        cx, cy = random.uniform(0, size, 2)
        turn = random.uniform(0, math.pi)
        u = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
        v = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
        if random.uniform() < 0.6:
            inside = u**2 + (v * random.uniform(1, 2)) ** 2 < radius**2
        else:
            inside = (np.abs(u) < radius) & (np.abs(v) < radius * random.uniform(0.3, 1))
        hue = palette_angle + random.normal(0, 0.7)
        colour = 0.45 + 0.25 * random.normal() + 0.12 * np.cos(hue + np.array([0, 2.1, 4.2]))
        direction = stripes_angle + random.normal(0, 0.15)
        wave = x * math.cos(direction) + y * math.sin(direction)
        stripes = np.sin(2 * math.pi * wave / (spacing * random.uniform(0.85, 1.15)))
        shade = random.normal(0, 0.15) * u / radius + 0.08 * stripes + 0.05 * grain
        image[inside] = (colour + shade[..., None])[inside]
    light = 0.08 * pink_noise(size, random)
    image += light[..., None] + random.normal(0, 0.01, image.shape)
    return (255 * image.clip(0, 1)).round().astype(np.uint8)


def write_images(folder: Path, *, num_images: int = 6, size: int = 256, seed: int = 0) -> Path:
    """Write `num_images` of each class into `folder`, one folder per class; return `folder`.

    The same seed gives the same pixels; a class folder that is complete is left as it is.
    """
    for kind, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(num_images):
            path = folder / name / f"{number:03}.png"
            if not path.exists():
                random = np.random.default_rng((seed, kind, number))
                Image.fromarray(scene(kind, random, size=size)).save(path)
    return folder


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("folder", type=Path)
    words.add_argument("--images", type=int, default=6, help="of each class")
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    print(write_images(given.folder, num_images=given.images, seed=given.seed))


if __name__ == "__main__":
    main()
