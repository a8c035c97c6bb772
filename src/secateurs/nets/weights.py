"""Pretrained weights put into a network, and put into words."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.backbones import layers, num_heads, source_of
from secateurs.nets.download import WeightsFile, find_weights
from secateurs.nets.several_depths import stock_tensors
from secateurs.nets.sources import timm_models
from secateurs.nets.sources.tensor_files import read_tensors, unwrapped, without_prefix
from secateurs.nets.stock import build_stock, earlier_depths, stock_name
from secateurs.progress import SILENT, Progress

# Names that torchvision has changed since it published some of its files.
_RENAMED = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$"), r"\1\2"),
    (re.compile(r"^(.*\.mlp)\.linear_1\.(.*)$"), r"\1.0.\2"),
    (re.compile(r"^(.*\.mlp)\.linear_2\.(.*)$"), r"\1.3.\2"),
)
# The auxiliary classifiers of GoogLeNet and Inception, which are not built.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class WeightsReport:
    """What a network started from.

    `loaded` and `fresh` are the aliases of the layers with pretrained and with random weights (the
    head is always among the fresh); `sha256` is the file's; `sentence` says it in plain words.
    """

    source: str
    detail: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    sha256: str | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return {**asdict(self), "loaded": list(self.loaded), "fresh": list(self.fresh)}


def load_pretrained(
    model: nn.Module,
    name: str,
    source: str | Path | WeightsFile,
    *,
    cache: Path,
    progress: Progress = SILENT,
) -> WeightsReport:
    """Put pretrained weights into a freshly built network, in place, all but the head's.

    `source` is "auto", "none", a path (see `read_tensors`; complete or in part), or what
    `find_weights` has found before. Raises InputError, and changes nothing, for a file that is
    missing, damaged, holds code, or whose tensors are not this network's.

    >>> from secateurs.nets.backbones import build
    >>> model = build("squeezenet1_1", 3)
    >>> load_pretrained(model, "squeezenet1_1", "none", cache=Path("unused")).sentence
    'random weights, as asked: 0 of 26 layers pretrained (classifier.1 is the new head)'
    """
    found = source
    if not isinstance(found, WeightsFile):
        found = find_weights(name, found, cache=cache, progress=progress)
    known = layers(model, name)
    given: set[str] = set()
    if found.path is not None:
        stock, names = _stock(model, name)
        tensors = read_tensors(found.path)
        if source_of(name) == "timm":
            tensors = timm_models.in_own_names(tensors, stock)
        tensors = fitting(tensors, stock, stock_name(name), file=found.path)
        own = model.state_dict()
        given = {names[key] for key in tensors}
        with torch.no_grad():
            for key, tensor in tensors.items():
                own[names[key]].copy_(tensor)
    loaded = tuple(layer.alias for layer in known if f"{layer.path}.weight" in given)
    fresh = tuple(layer.alias for layer in known if layer.alias not in loaded)
    sentence = words(loaded, fresh, num_heads(model, name))
    if found.path is None:
        sentence = f"{found.detail}: {sentence}"
    report = WeightsReport(found.source, found.detail, loaded, fresh, found.sha256, sentence)
    origin = "" if found.path is None else f", from {found.source} ({found.detail})"
    progress.note(f"weights of {name}: {sentence}{origin}")
    return report


def _stock(model: nn.Module, name: str) -> tuple[nn.Module, dict[str, str]]:
    """The network as its source builds it, and its names of tensors with those that `model` has.

    It is `model` itself, but for a network whose head reads several depths.
    """
    paths = earlier_depths(name)
    if not paths:
        return model, {key: key for key in model.state_dict()}
    stock = build_stock(stock_name(name), 2)
    return stock, stock_tensors(stock, stock_name(name), paths)


def words(loaded: tuple[str, ...], fresh: tuple[str, ...], num_heads: int = 1) -> str:
    """How many layers are pretrained and which are not; the last of `fresh` are the heads.

    >>> words(("conv1",), ("fc6", "fc7", "fc8"))
    '1 of 4 layers pretrained, fc6 and fc7 new (fc8 is the new head)'
    """
    new, heads = fresh[:-num_heads], " and ".join(fresh[-num_heads:])
    text = f"{len(loaded)} of {len(loaded) + len(fresh)} layers pretrained"
    if loaded and len(new) > 4:
        text += f", {len(new)} new"
    elif loaded and new:
        text += f", {' and '.join(filter(None, (', '.join(new[:-1]), new[-1])))} new"
    return f"{text} ({heads} {'is' if num_heads == 1 else 'are'} the new head)"


def fitting(
    tensors: Mapping[str, Tensor], model: nn.Module, name: str, *, file: Path
) -> dict[str, Tensor]:
    """The tensors that belong into a network, the heads' left out, under its own names and types.

    Raises InputError that names the file and the tensor: one that has no place in the network, is
    there twice, is of another shape, is not finite, or comes without the rest of its layer.
    """
    own = model.state_dict()
    known = layers(model, name)
    num_body = len(known) - num_heads(model, name)
    heads = tuple(f"{layer.path}." for layer in known[num_body:])
    if not any(_own_name(given, own.keys()) in own for given in tensors):
        tensors = without_prefix(tensors, f"{known[0].path}.weight")
    kept: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        key = _own_name(given, own.keys())
        if key.startswith(heads) or (key not in own and key.startswith(_AUXILIARY)):
            continue
        if key in kept:
            raise InputError(f"{file}: tensor {_shown(key)} is in it twice, as {_shown(given)} too")
        kept[key] = tensor
    matching = [key for key in kept if key in own]
    if not matching:
        first = f"its first is {_shown(next(iter(tensors)))}" if tensors else "it holds no tensors"
        raise InputError(f"{file}: no tensor of {name}'s body in it ({first})")
    for key, tensor in kept.items():
        if key not in own:
            raise InputError(f"{file}: tensor {_shown(key)} has no place in {name}")
        if tensor.shape != own[key].shape:
            raise InputError(
                f"{file}: tensor {key!r} is {tuple(tensor.shape)}, "
                f"{name} needs {tuple(own[key].shape)}"
            )
        if tensor.is_complex():
            raise InputError(f"{file}: tensor {key!r} holds complex numbers")
        # In the network's own type, in which a number may be too large.
        kept[key] = tensor.to(own[key].dtype)
        if not bool(torch.isfinite(kept[key]).all()):
            raise InputError(f"{file}: tensor {key!r} holds values that are not finite")
    for layer in known[:num_body]:
        parts = [key for key in own if key.rpartition(".")[0] == layer.path]
        missing = [key for key in parts if key not in kept]
        if missing and len(missing) < len(parts):
            raise InputError(f"{file}: tensor {missing[0]!r} is missing beside the layer's others")
    return kept


def _own_name(given: str, own: Collection[str]) -> str:
    # The network's name for a tensor, without wrappers' names and under today's spelling.
    for name in unwrapped(given):
        key = _renamed(name)
        if key in own or key.startswith(_AUXILIARY):
            return key
    return _renamed(given)


def _renamed(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
