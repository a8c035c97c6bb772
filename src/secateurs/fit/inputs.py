"""What a tail is trained on: the frozen prefix's output for every view, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import mul

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.data.views import Augmentation, mirrored, normalise, views
from secateurs.fit.precision import Precision, arithmetic
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress

PREFIX_BATCH = 32
PAPER_AUGMENTATION = Augmentation()


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
        pixels = torch.from_numpy(np.ascontiguousarray(self.eval_pixels[rows])).to(device)
        return normalise(pixels, mean=self.mean, std=self.std)

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
            turned = torch.from_numpy(flip).to(device).view(-1, 1, 1, 1)
            return torch.where(turned, upright.flip(3), upright)
        return views(
            torch.from_numpy(np.ascontiguousarray(self.pixels[rows])).to(device),
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


def run_frozen(module: nn.Module, batch: Tensor, *, precision: Precision = "float32") -> Tensor:
    """A frozen module's float32 output, in eval mode and without gradient."""
    with eval_mode(module), torch.no_grad(), arithmetic(precision, batch.device):
        return module(batch).float()


@dataclass(frozen=True)
class Inputs:
    """A tail's inputs: kept for every view, or computed when asked for.

    `batch(epoch, rows)` gives the prefix's output for the epoch's views of the training images in
    `rows`; `val` holds it for the validation images, always in float32 arithmetic. `stored`
    (views, n, ...) is what is kept.
    """

    images: Images
    plan: ViewPlan
    prefix: nn.Module
    device: torch.device
    precision: Precision
    val: Tensor
    stored: Tensor | None

    def batch(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """The tail's inputs (m, ...) for one step, float32 on the device."""
        view = self.plan.view_of(epoch)
        if self.stored is not None:
            return self.stored[view][torch.from_numpy(rows)].to(self.device)
        batch = self.images.train_views(
            rows,
            seed=self.plan.seed,
            epoch=view,
            augmentation=self.plan.augmentation,
            device=self.device,
        )
        return run_frozen(self.prefix, batch, precision=self.precision)


def _fill(
    shape: tuple[int, int],
    compute: Callable[[int, slice], Tensor],
    advance: Callable[[int], None],
) -> Tensor:
    # Rows of `shape` (views, n) filled batch by batch: the peak is the whole and one batch.
    num_views, num = shape
    filled: Tensor | None = None
    for view in range(num_views):
        for first in range(0, num, PREFIX_BATCH):
            rows = slice(first, min(first + PREFIX_BATCH, num))
            part = compute(view, rows)
            if filled is None:
                whole = (num_views, num, *part.shape[1:])
                filled = torch.empty(whole, dtype=part.dtype, device=part.device)
            filled[view, rows] = part
            advance(rows.stop - rows.start)
    assert filled is not None
    return filled


def prefix_outputs(
    images: Images,
    prefix: nn.Module,
    *,
    device: torch.device,
    mirrored: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> Tensor:
    """The prefix's output (n, ...) for the evaluation views of all `images`, in float32.

    With `mirrored` for their mirror images.
    """

    def compute(view: int, rows: slice) -> Tensor:
        batch = images.eval_views(rows, device)
        return run_frozen(prefix, batch.flip(-1) if mirrored else batch)

    return _fill((1, len(images)), compute, advance)[0]


def prepare_inputs(
    train: Images,
    val: Images,
    prefix: nn.Module,
    plan: ViewPlan,
    *,
    num_epochs: int,
    device: torch.device,
    precision: Precision = "float32",
    budget_bytes: int = 2 * 2**30,
    progress: Progress = SILENT,
) -> Inputs:
    """Compute a frozen prefix once for every view that training will see.

    When the views' outputs together exceed `budget_bytes` they are computed in every epoch
    instead, with the same result to rounding.
    """
    num_views = plan.num_distinct(num_epochs)
    probe = run_frozen(prefix, val.eval_views(slice(0, 1), device), precision=precision)
    needed = reduce(mul, probe.shape[1:], 4) * num_views * len(train)
    keep = needed <= budget_bytes
    total = len(val) + (num_views * len(train) if keep else 0)
    with progress.task("frozen layers", total) as advance:
        outputs = prefix_outputs(val, prefix, device=device, advance=advance)
        inputs = Inputs(train, plan, prefix, device, precision, outputs, None)
        if not keep:
            return inputs

        def compute(view: int, rows: slice) -> Tensor:
            return inputs.batch(view, np.arange(rows.start, rows.stop))

        stored = _fill((num_views, len(train)), compute, advance)
    return replace(inputs, stored=stored)


def extend_inputs(
    inputs: Inputs,
    steps: nn.Module,
    *,
    prefix: nn.Module,
    progress: Progress = SILENT,
) -> Inputs:
    """Carry kept outputs through further frozen `steps`; `prefix` is the whole deeper prefix.

    What is not kept is computed from the images again when asked for.
    """

    def push(tensor: Tensor, precision: Precision, advance: Callable[[int], None]) -> Tensor:
        def compute(view: int, rows: slice) -> Tensor:
            return run_frozen(steps, tensor[view, rows], precision=precision)

        return _fill((tensor.shape[0], tensor.shape[1]), compute, advance)

    stored = inputs.stored
    total = len(inputs.val) + (0 if stored is None else stored.shape[0] * stored.shape[1])
    with progress.task("frozen layers", total) as advance:
        val = push(inputs.val[None], "float32", advance)[0]
        if stored is not None:
            stored = push(stored, inputs.precision, advance)
    return replace(inputs, prefix=prefix, val=val, stored=stored)
