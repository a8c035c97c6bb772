"""A user's loader read: batches that calibrate, and held-out ones that decide between variants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from secateurs.api.models import grouped, on_device, samples_in_one
from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Whole, all_finite, num_samples, samples
from secateurs.nets.trace import first_line

HELD_OUT = 5  # of so many samples one decides, and calibrates nothing


def read_batches(
    loader: Iterable[Batch],
    model: nn.Module,
    most: int,
    run: Callable[[nn.Module, Batch], object] | None = None,
) -> tuple[list[Batch], list[Batch]]:
    """Batches for calibration and held-out ones, `most` samples together, on the model's device.

    Where the model does not `run` on single samples, two of them count as one, or a whole batch, as
    of graphs (see `samples_in_one`). Raises InputError for what is no loader, for one that raises,
    and where there is no sample.
    """
    if isinstance(most, bool) or not isinstance(most, int):  # pyright: ignore
        raise InputError(f"num_samples: expected a whole number, got {type(most).__name__}")
    if most < 2:
        raise InputError(f"num_samples: expected at least 2, got {most}")
    calibration: list[Batch] = []
    held_out: list[Batch] = []
    left, together = most, None
    for batch in _parts(loader, model, run):
        together = isinstance(batch, Whole)
        num = min(num_samples(batch), left)
        if not num:
            continue
        given = samples(batch, slice(0, num))
        part = num // HELD_OUT
        if part:
            held_out.append(samples(given, slice(0, part)))
        calibration.append(samples(given, slice(part, num)))
        left -= num
        if not left:
            break
    if not calibration:
        raise InputError("loader: it gave no batch with a sample")
    if most - left < 2 and not together:
        raise InputError("loader: it gave one sample, at least 2 are needed")
    if not held_out:  # batches of a few samples: every fifth of them
        held_out = calibration[HELD_OUT - 1 :: HELD_OUT] or calibration[-1:]
        calibration = [batch for batch in calibration if not any(batch is h for h in held_out)]
        calibration = calibration or held_out
    return calibration, held_out


def _parts(
    loader: Iterable[Batch], model: nn.Module, run: Callable[[nn.Module, Batch], object] | None
) -> Iterator[Batch]:
    """The batches, or in their place what counts as one sample each."""
    count: int | None = None
    for batch in _batches(loader, model):
        if not num_samples(batch):
            continue
        if count is None:
            count = samples_in_one(model, batch, run)
        yield from grouped(batch, count)


def _batches(loader: Any, model: nn.Module) -> Iterator[Batch]:
    """The batches of a loader as tensors; what it raises, in one line."""
    _check_loader(loader)
    number = 0
    while True:
        try:
            if not number:
                loader = iter(loader)
            batch = next(loader)
        except StopIteration:
            return
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"loader: batch {number} could not be read ({type(error).__name__}: "
                f"{first_line(error)})"
            ) from error
        found = on_device(batch, model)
        if not all_finite(found):
            raise InputError(
                f"loader: batch {number} has values that are not finite (NaN or infinite)"
            )
        yield found
        number += 1


def _check_loader(loader: object) -> None:
    if isinstance(loader, Tensor | Mapping | str):
        given = type(loader).__name__
        raise InputError(
            f"loader: expected an iterable of batches, got a {given}; put it in a list"
        )
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise InputError(
            "loader: expected batches, got a dataset; give torch.utils.data.DataLoader(dataset, "
            "batch_size=32)"
        )
    if not isinstance(loader, Iterable):
        raise InputError(f"loader: expected an iterable of batches, got {type(loader).__name__}")
