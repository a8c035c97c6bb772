"""Tensors out of weights files and training checkpoints, read without running code."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateurs.data.names import printable
from secateurs.errors import InputError

# Where training programs keep a network's tensors in their checkpoints, the first found is taken.
_CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("weights", "params", "teacher", "student", "state_dict_ema", "model_ema", "ema"),
    *("ema_state_dict", "ema_model", "checkpoint"),
)
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".th", ".tar", ".safetensors")
_MAX_NESTING = 4
# Put before every name by torch.compile, DataParallel, and modules that hold the network.
_WRAPPERS = ("_orig_mod.", "module.", "model.", "net.", "network.")
# These two can stand within a name, too, where a part of the network was wrapped.
_INNER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module)\.")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, by name, without running anything in it.

    A checkpoint that keeps its tensors under "state_dict", "model_state_dict", "model", "net" or
    another usual name, or under one name only, is opened, and what wrappers such as DataParallel
    and torch.compile put before every name is taken off. Raises InputError that names the file.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        fault = "not a regular file" if path.exists() else "no such weights file"
        raise InputError(f"{path}: {fault}")
    if suffix not in _SUFFIXES:
        kinds = f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
        raise InputError(f"{path}: expected a {kinds} file")
    try:
        content: Any = load_file(path) if suffix == ".safetensors" else _torch_load(path)
        tensors = _named_tensors(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, it holds more than tensors and could run code, or is damaged; "
            f"save the model's state_dict() instead{_refers_to(error)}"
        ) from None
    # What a damaged file makes torch, pickle and zipfile raise is not documented.
    except Exception as error:
        raise InputError(
            f"{path}: not readable as weights, damaged or cut off ({_reason(error)})"
        ) from None
    for tensor in tensors.values():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise InputError(f"{path}: holds tensors that are sparse, quantized or without values")
    return tensors


def _reason(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def _refers_to(error: pickle.UnpicklingError) -> str:
    """The first class or function that a file names, as PyTorch's refusal has it."""
    found = re.search(r"GLOBAL ([\w.]{1,120}) was not an allowed global", str(error))
    return f" (it refers to {found[1]})" if found else ""


def _torch_load(path: Path) -> Any:
    # Only a zip can be mapped; an old file, or what only looks like one, is read.
    mapped = zipfile.is_zipfile(path)
    if mapped:
        _check_archive(path)
    with (
        warnings.catch_warnings(),
        # Options of the training program, beside the tensors: attributes and nothing else.
        torch.serialization.safe_globals([argparse.Namespace]),
    ):
        # Files from before PyTorch 1.6 are read through a deprecated kind of storage.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _check_archive(path: Path) -> None:
    """Refuse an archive that would be larger in memory than on the disk; PyTorch writes none."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise InputError("not readable as weights: compressed, which PyTorch never writes")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise InputError("not readable as weights, damaged: its parts overlap")


def _named_tensors(content: Any) -> dict[str, Tensor]:
    for _ in range(_MAX_NESTING):
        inner = _inner(content)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise InputError(f"expected tensors by name (a state_dict), got a {type(content).__name__}")
    tensors = {
        str(key): value
        for key, value in content.items()
        if isinstance(value, Tensor) and key != "n_averaged"  # a counter of torch's AveragedModel
    }
    while tensors and any(all(key.startswith(word) for key in tensors) for word in _WRAPPERS):
        tensors = {key.partition(".")[2]: value for key, value in tensors.items()}
    return tensors


def _inner(content: Any) -> Any:
    # The first of the usual containers that holds anything by name.
    if not isinstance(content, Mapping):
        return None
    for key in _CONTAINERS:
        value = content.get(key)
        if isinstance(value, Mapping) and value:
            return value
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    holding = [value for value in content.values() if isinstance(value, Mapping) and _holds(value)]
    return holding[0] if len(holding) == 1 else None


def _holds(content: Mapping[Any, Any]) -> bool:
    """Whether there are tensors in a mapping, or in one that it holds."""
    return any(
        isinstance(value, Tensor)
        or (isinstance(value, Mapping) and any(isinstance(one, Tensor) for one in value.values()))
        for value in content.values()
    )


def without_prefix(tensors: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """The tensors of the module of which `first` is a tensor, by their names in it.

    A training program may keep the network under any name, beside a head or a loss of its own. What
    is not in the same module is left out. All tensors where no module, or more than one, has it.

    >>> weight = torch.zeros(1)
    >>> list(without_prefix({"backbone.stem.weight": weight, "head.bias": weight}, "stem.weight"))
    ['stem.weight']
    """
    found = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    if len(found) != 1:
        return dict(tensors)
    return {
        name.removeprefix(found[0]): tensor
        for name, tensor in tensors.items()
        if name.startswith(found[0])
    }


def unwrapped(name: str) -> Generator[str]:
    """A tensor's name as it is, and what it may be without the names of wrappers.

    >>> list(unwrapped("model.features.module.0.weight"))[:3]
    ['model.features.module.0.weight', 'model.features.0.weight', 'features.0.weight']
    """
    yield name
    inner = _INNER.sub("", name)
    if inner != name:
        yield inner
    for start in dict.fromkeys((inner, name)):
        rest = start
        while any(rest.startswith(word) for word in _WRAPPERS):
            rest = rest.partition(".")[2]
            yield rest
