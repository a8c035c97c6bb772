"""What a tail is trained on: the frozen prefix's output for every view, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.fit.cache import PrefixCache
from secateurs.fit.images import Images, ViewPlan
from secateurs.fit.precision import Precision, arithmetic
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress

PREFIX_BATCH = 32
PREFIX_BATCH_CUDA = 256


def run_frozen(module: nn.Module, batch: Tensor, *, precision: Precision = "float32") -> Tensor:
    """A frozen module's output in the precision named, in eval mode and without gradient.

    Pictures and maps go in channels last, which convolutions on a CPU are up to twice as fast on.
    """
    if batch.dim() == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    with eval_mode(module), torch.no_grad(), arithmetic(precision, batch.device):
        return module(batch).to(getattr(torch, precision))


@dataclass(frozen=True)
class Inputs:
    """A tail's inputs: kept for every view, or computed when asked for.

    `val` holds the prefix's output for the validation images, always in float32 arithmetic.
    `stored` has one tensor (n, ...) a view, the outputs of the prefix or of its first steps, and
    `rest` the steps that are left to do; without `stored` they start from the views themselves.
    `teacher` holds the logits (n, classes) of another network for every view, where there is one.
    """

    images: Images
    plan: ViewPlan
    num_views: int
    device: torch.device
    precision: Precision
    val: Tensor
    stored: list[Tensor] | None
    rest: nn.Sequential
    teacher: list[Tensor] | None = None

    def teacher_logits(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """The teacher's logits (m, classes) for the epoch's views of the images in `rows`."""
        if self.teacher is None:
            raise InputError("distil: there is no teacher to learn from")
        return _take(self.teacher[self.plan.view_of(epoch)], rows).to(self.device)

    def batch(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """The tail's inputs (m, ...) for the epoch's views of the training images in `rows`.

        On the device, in the precision of the training.
        """
        view = self.plan.view_of(epoch)
        if self.stored is not None:
            return self._finish(_take(self.stored[view], rows).to(self.device))
        return self._finish(
            self.images.train_views(
                rows,
                seed=self.plan.seed,
                epoch=view,
                augmentation=self.plan.augmentation,
                device=self.device,
            )
        )

    def _finish(self, batch: Tensor) -> Tensor:
        return run_frozen(self.rest, batch, precision=self.precision)


def _take(values: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Rows of a tensor; a graphics card that holds it is not waited for."""
    return values[torch.from_numpy(rows).to(values.device, non_blocking=True)]


def _rows(num: int, device: torch.device) -> list[slice]:
    step = PREFIX_BATCH_CUDA if device.type == "cuda" else PREFIX_BATCH
    return [slice(first, min(first + step, num)) for first in range(0, num, step)]


def _in_batches(
    compute: Callable[[slice], Tensor],
    num: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> Tensor:
    # Filled batch by batch: the peak is the whole and one batch.
    whole: Tensor | None = None
    for rows in _rows(num, device):
        part = compute(rows)
        if whole is None:
            layout = torch.channels_last if part.dim() == 4 else torch.contiguous_format
            whole = torch.empty(
                num, *part.shape[1:], dtype=part.dtype, device=part.device, memory_format=layout
            )
        whole[rows] = part
        advance(rows.stop - rows.start)
    assert whole is not None
    return whole


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

    def compute(rows: slice) -> Tensor:
        batch = images.eval_views(rows, device)
        return run_frozen(prefix, batch.flip(-1) if mirrored else batch)

    return _in_batches(compute, len(images), device, advance)


def prepare_inputs(
    train: Images,
    val: Images,
    prefix: nn.Sequential,
    plan: ViewPlan,
    *,
    num_epochs: int,
    device: torch.device,
    precision: Precision = "float32",
    cache: PrefixCache | None = None,
    key: str = "",
    progress: Progress = SILENT,
) -> Inputs:
    """Compute a frozen prefix once for every view that training will see.

    When the views' outputs together exceed the cache's budget they are computed in every epoch
    instead, with the same result to rounding. In a cache of files `key` names the prefix and the
    views: 64 hexadecimal digits over all that decides them.
    """
    with progress.task("frozen layers, validation", len(val)) as advance:
        outputs = prefix_outputs(val, prefix, device=device, advance=advance)
    inputs = Inputs(
        images=train,
        plan=plan,
        num_views=plan.num_distinct(num_epochs),
        device=device,
        precision=precision,
        val=outputs,
        stored=None,
        rest=prefix,
    )
    return _kept(inputs, cache or PrefixCache(), key, progress)


def with_teacher(inputs: Inputs, teacher: nn.Module, *, progress: Progress = SILENT) -> Inputs:
    """The inputs with a teacher's answers to every view, computed once."""
    answers: list[Tensor] = []
    num = len(inputs.images)
    with progress.task("the teacher's answers", inputs.num_views * num) as advance:
        for view in range(inputs.num_views):

            def ask(rows: slice, view: int = view) -> Tensor:
                batch = inputs.images.train_views(
                    np.arange(rows.start, rows.stop),
                    seed=inputs.plan.seed,
                    epoch=view,
                    augmentation=inputs.plan.augmentation,
                    device=inputs.device,
                )
                return run_frozen(teacher, batch)

            answers.append(_in_batches(ask, num, inputs.device, advance))
    return replace(inputs, teacher=answers)


def extend_inputs(
    inputs: Inputs,
    steps: nn.Sequential,
    *,
    cache: PrefixCache | None = None,
    key: str = "",
    consume: bool = False,
    progress: Progress = SILENT,
) -> Inputs:
    """Carry kept outputs through further frozen `steps`.

    With `consume` each view is let go as soon as its deeper output is there: the peak is one view
    more than the larger of both, and `inputs` must not be used again. Outputs too large for the
    cache are computed, when asked for, from what was kept before.
    """

    def push(rows: slice) -> Tensor:
        return run_frozen(steps, inputs.val[rows])

    with progress.task("frozen layers, validation", len(inputs.val)) as advance:
        val = _in_batches(push, len(inputs.val), inputs.device, advance)
    deeper = replace(inputs, val=val, rest=nn.Sequential(*inputs.rest, *steps))
    return _kept(deeper, cache or PrefixCache(), key, progress, consume=consume)


def view_name(key: str, view: int) -> str:
    """Under which name a `PrefixCache` keeps a prefix's output for a view."""
    return fingerprint({"prefix": key, "view": view})


def _kept(
    inputs: Inputs, cache: PrefixCache, key: str, progress: Progress, *, consume: bool = False
) -> Inputs:
    """The inputs with nothing left to do, where the cache has room for that."""
    num, num_views = len(inputs.images), inputs.num_views
    probe = inputs.batch(0, np.arange(min(1, num)))
    shape = (num, *probe.shape[1:])
    if not cache.fits(num_views * num * probe[0].numel() * probe.element_size()):
        return inputs
    kept: list[Tensor] = []
    with progress.task("frozen layers", num_views * num) as advance:
        for view in range(num_views):

            def fill(whole: Tensor, view: int = view) -> None:
                for rows in _rows(num, inputs.device):
                    whole[rows] = inputs.batch(view, np.arange(rows.start, rows.stop))
                    advance(rows.stop - rows.start)

            tensor = cache.keep(
                view_name(key, view), shape, probe.dtype, fill, device=inputs.device
            )
            if tensor is None:
                progress.note(
                    f"the disk of {cache.folder} is full: frozen layers are computed in every epoch"
                )
                return inputs
            kept.append(tensor)
            if consume and inputs.stored is not None and cache.folder is None:
                inputs.stored[view] = torch.empty(0)
    return replace(inputs, stored=kept, rest=nn.Sequential())
