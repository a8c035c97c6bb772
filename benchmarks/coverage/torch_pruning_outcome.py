"""What torch-pruning makes of a network, and whether its result equals zeroing the same units."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secateurs.nets.counting import num_parameters
from secateurs.nets.trace import tensors_of
from secateurs.prune.surgery.parity import VISIBLE

Call = Callable[[nn.Module, Any], object]
LIMIT = 1e-5  # of the effect of zeroing, as for our own cuts


def outcome(model: nn.Module, inputs: Any, call: Call, num_classes: int) -> dict[str, Any]:
    """Prune by magnitude, half of the channels of each group; what is left, and if it is right.

    Layers that give `num_classes` outputs are ignored, as its examples do. The channels that
    readers lose are noted, and the network given is run with zeros in their place, in float64.
    """
    import torch_pruning as tp

    whole = copy.deepcopy(model).double().eval()
    cut = copy.deepcopy(whole)
    inputs = _double(inputs)
    ignored = [
        module
        for module in cut.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
        and len(module.weight) == num_classes
    ]
    before = _macs(whole, inputs, call), num_parameters(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.MetaPruner(
            cut,
            inputs,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ignored,
            forward_fn=call,
            output_transform=_numbers,
        )
        gone = _prune(pruner, cut)
    difference = _error(whole, cut, gone, inputs, call)
    after = _macs(cut, inputs, call), num_parameters(cut)
    return {
        "macs": after[0] / before[0],
        "params": after[1] / before[1],
        # None where outputs have other shapes
        "difference": difference if math.isfinite(difference) else None,
    }


def _macs(network: nn.Module, inputs: Any, call: Call) -> int:
    """Multiply-accumulates of a run, with values: some networks look at them."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        call(network, inputs)
    return counter.get_total_flops() // 2


def _prune(pruner: Any, cut: nn.Module) -> dict[str, set[int]]:
    """Prune, and note by path which inputs of the network given each layer has lost."""
    paths = {module: path for path, module in cut.named_modules()}
    alive: dict[str, list[int]] = {}
    gone: dict[str, set[int]] = {}
    for group in pruner.step(interactive=True):
        lost: dict[str, set[int]] = {}
        for dependency, places in group:
            module = dependency.target.module
            path = paths.get(module)
            if path is None or "in_channels" not in dependency.handler.__name__:
                continue
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim < 2:
                continue
            width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
            alive.setdefault(path, list(range(width)))
            lost.setdefault(path, set()).update(places)
        group.prune()
        for path, places in lost.items():
            gone.setdefault(path, set()).update(alive[path][place] for place in places)
            alive[path] = [k for place, k in enumerate(alive[path]) if place not in places]
    return gone


@torch.no_grad()
def _error(
    whole: nn.Module, cut: nn.Module, gone: dict[str, set[int]], inputs: Any, call: Call
) -> float:
    """The largest difference from zeroing, relative to the effect of zeroing."""
    expected = _numbers(call(whole, inputs))

    def mute(layer: nn.Module, lost: set[int]) -> None:
        axis = -1 if isinstance(layer, nn.Linear) else 1
        index = torch.tensor(sorted(lost))

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0].index_fill(axis, index, 0.0), *args[1:])

        layer.register_forward_pre_hook(hook)

    for path, lost in gone.items():
        mute(whole.get_submodule(path), lost)
    zeroed, found = _numbers(call(whole, inputs)), _numbers(call(cut, inputs))
    if [part.shape for part in zeroed] != [part.shape for part in found]:
        return float("inf")
    effect = max(float((a - b).abs().max()) for a, b in zip(expected, zeroed, strict=True))
    error = max(float((a - b).abs().max()) for a, b in zip(found, zeroed, strict=True))
    largest = max(float(part.abs().max()) for part in zeroed)
    effect = max(effect, VISIBLE * largest)  # rounding alone is no difference
    return error / effect if effect > 0 else (0.0 if error == 0 else float("inf"))


def _numbers(output: object) -> list[Tensor]:
    return [part for part in tensors_of(output) if part.is_floating_point() and part.numel()]


def _double(inputs: Any) -> Any:
    from secateurs.nets.batches import map_tensors

    return map_tensors(inputs, lambda t: t.double() if t.is_floating_point() else t)
