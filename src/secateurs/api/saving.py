"""A pruned model's weights as one file, read back into the model's own constructor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.api.arguments import checked_path
from secateurs.api.models import unwrapped
from secateurs.errors import InputError
from secateurs.files import atomic_path
from secateurs.fit.tensors import DamagedError, read_checked, write_checked
from secateurs.nets.attention import OPEN, open_attention
from secateurs.nets.trace import copied
from secateurs.prune.surgery.attributes import set_attributes
from secateurs.prune.surgery.resized import put_tensors

OPENED = "opened_attention"
UNPRUNED = "unpruned_shapes"
ATTRIBUTES = "attributes"
UNSAVED = "buffers_outside_state_dict"
PAIRS = "complex_numbers_as_pairs"  # of float64, for which the format has no type

Shapes = Mapping[str, Sequence[int]]  # of parameters and buffers, by name


def save_weights(
    model: nn.Module,
    path: Path,
    *,
    unpruned: Shapes | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write every parameter and buffer of a model, whole or not at all; no pickle.

    Tensors that the model shares between places are written once for each. The file carries a
    checksum, the shapes of the `unpruned` model, by which `load_weights` knows another one, the
    `attributes` of modules that have changed (see `changed_attributes`), and where there is
    attention that was opened for pruning. Buffers that a `state_dict` leaves out are in it where
    the cut changed their shapes.
    """
    model = unwrapped(model)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }
    unsaved: list[str] = []
    for name, buffer in model.named_buffers():
        if name not in tensors and _is_smaller(list(buffer.shape), (unpruned or {}).get(name)):
            tensors[name] = buffer.detach().cpu().contiguous().clone()
            unsaved.append(name)
    pairs = [name for name, tensor in tensors.items() if tensor.dtype == torch.complex128]
    tensors |= {name: torch.view_as_real(tensors[name]).clone() for name in pairs}
    opened = [p for p, module in model.named_modules() if isinstance(module, OPEN)]
    words = {
        OPENED: json.dumps(opened),
        UNPRUNED: json.dumps(unpruned or {}),
        ATTRIBUTES: json.dumps(attributes or {}),
        UNSAVED: json.dumps(unsaved),
        PAIRS: json.dumps(pairs),
    }
    with atomic_path(path) as temporary:
        write_checked(tensors, temporary, words)


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """The shapes of a model's parameters and buffers, by name.

    >>> shapes_of(nn.Linear(3, 2))
    {'weight': [2, 3], 'bias': [2]}
    """
    found = model.state_dict(keep_vars=True).items()
    return {name: list(value.shape) for name, value in found if isinstance(value, Tensor)}


def _is_smaller(shape: Sequence[int], before: Sequence[int] | None) -> bool:
    """Whether a shape is another one than before, and no axis is longer."""
    if before is None or len(shape) != len(before) or list(shape) == list(before):
        return False
    return all(size <= most for size, most in zip(shape, before, strict=True))


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """A copy of a freshly constructed model with the widths and weights of a saved pruned one.

    `path` is a file of `PrunedModel.save`. Parameters and buffers come back bit for bit, in the
    type of the file, on the model's device. The model given is not changed. Raises InputError when
    the file is damaged or of another model.
    """
    path = checked_path(path)
    unwrapped(model)
    try:
        tensors, words = read_checked(path)
        opened = json.loads(words.get(OPENED, "[]"))
        unpruned: dict[str, list[int]] = json.loads(words.get(UNPRUNED, "{}"))
        unsaved = set(json.loads(words.get(UNSAVED, "[]")))
        for name in json.loads(words.get(PAIRS, "[]")):
            tensors[name] = torch.view_as_complex(tensors[name].clone())  # the file's: not aligned
        attributes: dict[str, dict[str, Any]] = json.loads(words.get(ATTRIBUTES, "{}"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (DamagedError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not readable ({error})") from None
    model = copied(unwrapped(model))
    if opened:
        model = open_attention(model)
        known = [p for p, module in model.named_modules() if isinstance(module, OPEN)]
        if known != opened:
            raise InputError(f"{path}: weights of another model: its attention is elsewhere")
    _check_names(model, {name: t for name, t in tensors.items() if name not in unsaved}, path)
    for name in unsaved - dict(model.named_buffers()).keys():
        raise InputError(f"{path}: weights of another model: it has no buffer {name}")
    for name, shape in shapes_of(model).items():
        if unpruned.get(name, shape) != shape:
            raise InputError(
                f"{path}: weights of another model: {name} has {tuple(shape)}, and "
                f"{tuple(unpruned[name])} in the model that was pruned"
            )
    put_tensors(model, partial(_taken, tensors, path))
    try:
        set_attributes(model, attributes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return model


def _check_names(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected, given = model.state_dict().keys(), tensors.keys()
    for name in expected:
        if name not in given:
            raise InputError(f"{path}: weights of another model: it has no {name}")
    for name in given:
        if name not in expected:
            raise InputError(f"{path}: weights of another model: {name} is not in the one given")


def _aligned(tensor: Tensor) -> Tensor:
    """A copy; of complex numbers by way of their parts, since copying these asks for alignment."""
    if tensor.is_complex():
        return torch.view_as_complex(torch.view_as_real(tensor).clone())
    return tensor.clone()


def _taken(tensors: Mapping[str, Tensor], path: Path, key: str, old: Tensor) -> Tensor | None:
    """The file's tensor for one of a model; None for a buffer that is not saved."""
    if key not in tensors:
        return None
    # In aligned memory of its own, where sums come out as before: the file's is not aligned.
    new = _aligned(tensors[key]).to(old.device)
    sizes = zip(new.shape, old.shape, strict=False)
    if new.ndim != old.ndim or any(size > most for size, most in sizes):
        raise InputError(
            f"{path}: weights of another model: {key} has {tuple(new.shape)}, expected at "
            f"most {tuple(old.shape)}"
        )
    return new
