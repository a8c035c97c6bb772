"""What callers give checked: tensors, paths and numbers, each with one line that names it."""

from __future__ import annotations

import math
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.errors import InputError


def checked_tensor(value: Any, name: str, *, finite: bool = False) -> Tensor:
    """A dense tensor with values; InputError for everything else.

    >>> checked_tensor([1.0], "weight")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: weight: expected a tensor, got list
    """
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.is_meta:
        raise InputError(f"{name}: it has a shape and no values (device meta)")
    if value.is_nested or value.layout != torch.strided:
        raise InputError(f"{name}: expected a dense tensor, got a sparse or nested one")
    if finite and not bool(value.isfinite().all()):
        raise InputError(f"{name}: values that are not finite (NaN or infinite)")
    return value


def checked_path(value: Any, name: str = "path") -> Path:
    """A path; InputError for what is none."""
    if not isinstance(value, str | PathLike):
        raise InputError(f"{name}: expected a path, got {type(value).__name__}")
    return Path(value)


def file_to_write(value: Any) -> Path:
    """The path of a file that can be written; InputError for a folder."""
    path = checked_path(value)
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected the path of a file to write")
    return path


def checked_seed(value: Any) -> int:
    """A seed of random numbers; InputError for what is no whole number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral):  # pyright: ignore
        raise InputError(f"seed: expected a whole number, got {type(value).__name__}")
    if not -(2**63) <= int(value) < 2**63:
        raise InputError(f"seed: expected a number of 64 bits, got {int(value)}")
    return int(value)


def checked_number(value: Any, name: str) -> float:
    """A number; InputError for anything else, for NaN and for what a float cannot hold."""
    try:
        number = None if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        raise InputError(f"{name}: expected a number, got one too large for a float") from None
    if number is None or math.isnan(number):
        given = type(value).__name__ if number is None else number
        raise InputError(f"{name}: expected a number, got {given}")
    return number
