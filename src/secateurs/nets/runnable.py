"""What a network is followed with: a copy without values where that runs, one with values else."""

from __future__ import annotations

import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Run, copied_batch, samples, shape_words, without_values
from secateurs.nets.trace import copied, first_line, skeleton, tensors_of


def runnable(model: nn.Module, example: Batch, run: Run) -> tuple[nn.Module, Batch]:
    """A copy of a model in eval mode and the first sample of `example`, with which it runs.

    Both have shapes and no values, so that running them computes nothing. A network whose way
    depends on values (a branch on a mean, a length read from a tensor) gets a copy with its values
    and the real sample. Raises InputError where it does not run on that either.

    >>> net, sample = runnable(nn.Linear(3, 2), torch.ones(4, 3), lambda model, x: model(x))
    >>> net.weight.device.type, sample.shape
    ('meta', torch.Size([1, 3]))
    """
    sample = samples(example, slice(0, 1))
    bare, blank = skeleton(model), without_values(sample)
    error = _error_of(bare, blank, run)
    if error is None:
        return bare, blank
    given = tensors_of(sample)
    if given and all(tensor.is_meta for tensor in given):
        raise InputError(
            f"the network does not run on a sample of {shape_words(sample)} without values, so "
            f"that its layers cannot be followed ({type(error).__name__}: {first_line(error)})"
        ) from error
    real = copied(model).eval()
    error = _error_of(real, copied_batch(sample), run)
    if error is not None:
        raise InputError(
            f"the network does not run on a sample of {shape_words(sample)} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    return real, sample


def _error_of(model: nn.Module, sample: Batch, run: Run) -> Exception | None:
    try:
        with torch.no_grad():
            run(model, sample)
    except InputError:
        raise
    except Exception as error:  # whatever the network raises
        return error
    return None
