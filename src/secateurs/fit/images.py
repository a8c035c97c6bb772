"""Images as they lie in the store, and the views of them that training and evaluation see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.data.views import Augmentation, mirrored, normalise, views

PAPER_AUGMENTATION = Augmentation()
HELD_BYTES = 4 * 2**30  # of pixels on a graphics card, of one side of a split


def keeps_pixels(device: torch.device, num_bytes: int) -> bool:
    """Whether so many bytes of pixels stay on a device once they are there."""
    return device.type != "cpu" and num_bytes <= HELD_BYTES


@dataclass(frozen=True)
class Images:
    """Some images as they lie in the store, and how they become a network's input.

    `pixels` (n, s, s, 3) uint8, whole images squashed to a square, from which views are drawn;
    `eval_pixels` (n, size, size, 3) uint8, ready for evaluation; `ids` (n,) uint64 content ids;
    `sizes` (n, 2) original height and width; `labels` (n,) class indices.
    """

    pixels: NDArray[np.uint8]
    eval_pixels: NDArray[np.uint8]
    ids: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Height and width of a network's input in pixels."""
        return self.eval_pixels.shape[1]

    def take(self, rows: NDArray[np.int64]) -> Images:
        """Some of the images, in the order of `rows`."""
        return replace(
            self,
            pixels=self.pixels[rows],
            eval_pixels=self.eval_pixels[rows],
            ids=self.ids[rows],
            sizes=self.sizes[rows],
            labels=self.labels[rows],
        )

    def eval_views(self, rows: NDArray[np.int64] | slice, device: torch.device) -> Tensor:
        """Evaluation views (m, 3, size, size), float32 and normalised."""
        pixels = self._pixels("eval_pixels", rows, device)
        return normalise(pixels, mean=self.mean, std=self.std)

    @cached_property
    def _held(self) -> dict[tuple[str, torch.device], Tensor]:
        # What lies on a graphics card already, by field and device.
        return {}

    def _pixels(self, name: str, rows: NDArray[np.int64] | slice, device: torch.device) -> Tensor:
        """Some rows of a field of pixels, (m, height, width, 3) uint8, on a device.

        A graphics card gets all of them the first time: it picks rows faster than they travel.
        """
        array: NDArray[np.uint8] = getattr(self, name)
        if not keeps_pixels(device, array.nbytes):
            return torch.from_numpy(np.ascontiguousarray(array[rows])).to(device)
        held = self._held.get((name, device))
        if held is None:
            held = torch.from_numpy(np.ascontiguousarray(array)).to(device)
            self._held[name, device] = held
        if isinstance(rows, slice):
            return held[rows]
        return held[torch.from_numpy(np.ascontiguousarray(rows)).to(device, non_blocking=True)]

    def train_views(
        self,
        rows: NDArray[np.int64] | slice,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None,
        device: torch.device,
    ) -> Tensor:
        """Augmented views (m, 3, size, size) of one epoch; evaluation views when not augmented.

        Views that are neither turned nor cropped are evaluation views, mirrored or not.
        """
        if augmentation is None:
            return self.eval_views(rows, device)
        if augmentation.whole:
            flip = mirrored(self.ids[rows], seed=seed, epoch=epoch, chance=augmentation.flip)
            upright = self.eval_views(rows, device)
            turned = torch.from_numpy(flip).to(device, non_blocking=True).view(-1, 1, 1, 1)
            return torch.where(turned, upright.flip(3), upright)
        return views(
            self._pixels("pixels", rows, device),
            self.ids[rows],
            self.sizes[rows],
            seed=seed,
            epoch=epoch,
            augmentation=augmentation,
            size=self.size,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True)
class ViewPlan:
    """Which views training sees.

    `num_views` views an image are shared by all epochs (epoch e sees view e modulo num_views);
    None draws a new view for every epoch. `augmentation` None trains on evaluation views.
    """

    seed: int
    num_views: int | None = None
    augmentation: Augmentation | None = PAPER_AUGMENTATION

    def view_of(self, epoch: int) -> int:
        """The number of the view that an epoch sees.

        >>> [ViewPlan(seed=0, num_views=2).view_of(epoch) for epoch in range(4)]
        [0, 1, 0, 1]
        """
        if self.augmentation is None:
            return 0
        return epoch if self.num_views is None else epoch % self.num_views

    def num_distinct(self, num_epochs: int) -> int:
        """How many views of each image `num_epochs` epochs see."""
        if self.augmentation is None:
            return 1
        return num_epochs if self.num_views is None else min(self.num_views, num_epochs)
