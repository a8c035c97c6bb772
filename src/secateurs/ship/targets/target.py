"""What the module of a file format offers: write a checked file, open one and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.ship.spec import ModelSpec

Images = NDArray[np.float32]  # (n, 3, size, size), preprocessed
Logits = NDArray[np.float32]  # (n, classes)


@dataclass(frozen=True)
class FileCheck:
    """A file and the largest difference of a logit from PyTorch's on the images given.

    `num_bytes` counts every file of the format, `note` what was not checked, if anything. The
    difference is None where the format cannot be run on this machine.
    """

    path: Path
    max_abs_difference: float | None
    num_bytes: int
    note: str | None = None


@dataclass(frozen=True)
class OpenedFile:
    """A file in its own runtime: `run` gives the logits of preprocessed images.

    `spec` has classes, preprocessing and `extra` with confidence and card, but no widths. `run_on`
    runs on so many threads and may be called by several threads at once; None where the runtime
    cannot do that.
    """

    spec: ModelSpec
    run: Callable[[Images], Logits]
    run_on: Callable[[Images, int], Logits] | None = None


class Target(Protocol):
    """A module of this folder; `secateurs.ship.targets.formats` finds it by a file's ending.

    `NAME` is the format in words, `ENDING` that of its files, `EXTRA` the extra of pyproject.toml
    with what it needs beside PyTorch, or None.
    """

    NAME: str
    ENDING: str
    EXTRA: str | None

    def write(
        self,
        model: nn.Module,
        spec: ModelSpec,
        path: Path,
        example: Tensor,
        *,
        card: Mapping[str, Any] | None = None,
    ) -> FileCheck:
        """Write a model, whole or not at all, and check it on `example` (n, 3, size, size).

        The model is not changed; `card` is added to what `about` says. Raises InputError for a
        model that the format cannot hold, naming operator and layer, and for a missing extra;
        RuntimeError when the file's answers differ from PyTorch's.
        """
        ...

    def open(self, path: Path) -> OpenedFile:
        """Open a file of the format; InputError when it is damaged or the extra is missing."""
        ...
