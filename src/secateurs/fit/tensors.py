"""Tensors in a safetensors file, with the errors that other files give."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write contiguous CPU tensors; OSError, as `open` raises it, when the disk is full."""
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        # The library has no errors of its own for this: it quotes the system's number.
        if f"os error {errno.ENOSPC}" in str(error) or f"os error {errno.EDQUOT}" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from None
        raise
