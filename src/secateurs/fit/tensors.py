"""Tensors in a safetensors file, with the errors that other files give."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from secateurs.leftovers import SUFFIX, sweep_for, temporary_prefix

CHECKSUM = "crc32"


class DamagedError(ValueError):
    """A file of tensors that does not hold what was written."""


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write contiguous CPU tensors; OSError, as `open` raises it, where the system refuses.

    The library writes under a random name first, which a killed process would leave behind for
    ever: it does so in a folder whose name says which process it belongs to.
    """
    sweep_for(path.parent / "tensors")
    prefix = temporary_prefix("tensors")
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=path.parent))
    try:
        save_file(dict(tensors), folder / "tensors", metadata=metadata)
        (folder / "tensors").replace(path)
    except SafetensorError as error:
        # The library has no errors of its own for this: it quotes the system's number.
        number = re.search(r"os error (\d{1,5})\b", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_checked(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write contiguous CPU tensors with a checksum over them and the metadata."""
    words = dict(metadata or {})
    write_tensors(tensors, path, {**words, CHECKSUM: checksum(tensors, words)})


def read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file of `write_checked`.

    Raises DamagedError when anything in it has changed, OSError when it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            words = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:  # what a damaged header makes of the library is not documented
        raise DamagedError(" ".join(str(error).split()) or type(error).__name__) from None
    if words.pop(CHECKSUM, None) != checksum(tensors, words):
        raise DamagedError("its checksum is another one")
    return tensors, words


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of tensors on the CPU, with their names, types and shapes, and of words."""
    found = zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode(), found)
        flat = tensor.detach().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(flat.data, found)
    return f"{found:08x}"
