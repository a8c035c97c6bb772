"""A user's model pruned to a budget, on batches of a user's loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from secateurs.api.arguments import checked_seed, file_to_write
from secateurs.api.loading import read_batches
from secateurs.api.models import (
    as_unsaved,
    check_runs,
    given,
    half_type,
    loss_with,
    own_copy,
    run_with,
    unwrapped,
)
from secateurs.api.saving import save_weights, shapes_of
from secateurs.api.settings import Settings
from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import Batch, samples
from secateurs.nets.trace import copied, tensors_of
from secateurs.progress import SILENT, Progress
from secateurs.prune.coupling.groups import NotPruned
from secateurs.prune.network import Pruned
from secateurs.prune.reconstruction.options import options_of
from secateurs.prune.surgery.attributes import changed_attributes
from secateurs.prune.to_budget import Budget, Hooks, PrunedToBudget, prune_to_budget
from secateurs.stopping import StopFlag

CHECKED = 4  # samples on which a model is run before anything else

Ignored = Sequence[str | type[nn.Module] | nn.Module]


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model: `model` itself, the channels that are `kept`, and the `report`.

    `kept` has by path the output channels that each layer still has; `not_pruned` the groups that
    were left as they are, and why. `unpruned` are the shapes of the unpruned model's parameters and
    buffers, by name; `attributes`, by path and name, the numbers that modules keep of their own
    widths where these have changed.
    """

    model: nn.Module
    kept: dict[str, list[int]]
    report: dict[str, Any]
    not_pruned: tuple[NotPruned, ...]
    unpruned: dict[str, list[int]] = field(repr=False)
    attributes: dict[str, dict[str, Any]] = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Write the weights as one safetensors file, to be read by `load_weights`."""
        path = file_to_write(path)
        save_weights(self.model, path, unpruned=self.unpruned, attributes=self.attributes)

    def __str__(self) -> str:
        report = self.report
        return (
            f"{report['macs']:.1%} of the multiply-accumulates and {report['parameters']:.1%} of "
            f"the parameters left; the outputs changed by {report['change']:.1%} of their variance "
            "on held-out samples, before any training"
        )


def prune(
    model: nn.Module,
    loader: Iterable[Batch],
    budget: Budget,
    *,
    forward: Callable[[nn.Module, Batch], object] | None = None,
    outputs: Callable[[Any], object] | None = None,
    loss: Callable[[Any, Batch], object] | None = None,
    ignore: Ignored = (),
    ratios: Mapping[str, float] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    latency: Callable[[nn.Module, nn.Module], float] | None = None,
    train: Callable[[nn.Module, nn.Module], nn.Module | None] | None = None,
    norm_widths: bool = True,
    reconstruction: Literal["blocks"] | None = "blocks",
    num_samples: int = 256,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedModel:
    """Prune any model to a budget, with its weights refitted on unlabelled batches.

    The `loader`, any iterable of batches, is read once, up to `num_samples` samples; one of five
    decides between variants and calibrates nothing. Batches may have different numbers of samples,
    and samples of different sizes; NumPy arrays are taken as tensors. `forward(model, batch)` runs
    the model; by default a mapping is given as keywords, without those that the model's `forward`
    does not take (labels), and of a tuple or list the first element is given.

    `outputs` takes from what it returns what has to be kept; by default that is every
    floating-point tensor. With `loss(output, batch)`, a scalar, that loss decides between groups,
    and without it the change of the outputs; it gets what `forward` returns, one sample at a time.

    `ignore` are paths (with `*` as in file names), modules or types of modules whose outputs stay
    whole; `ratios` the shares (0..1) of the units to remove of groups with such names, whatever the
    budget. `evaluate(model)`, where higher is better, is needed for `max_loss`; `latency(model,
    pruned)`, the share of the time, for a latency budget. `train(pruned, model)` trains the pruned
    model, in place or not, and may return it. Without `norm_widths` units stay over which a layer,
    RMS or group norm computes its statistics, as the width of a transformer.

    By `reconstruction` the blocks of the pruned model are then tuned, one after the other and on
    the same samples, to give what they gave before; labels are not needed, and none of them stays
    that is not better on samples left out. None leaves that out.

    Memory: the samples; for each layer that reads prunable units the Gram matrix of what it
    receives (4 bytes for each pair of its inputs) and, in bfloat16, what it gives at some positions
    of each sample; and at most 1 GiB of activations. `num_samples` bounds all but the Gram
    matrices.

    The model given is not changed; the result is on its device, in its type and its mode. Raises
    InputError for bad input, when nothing can be pruned, and when the budget cannot be met.
    """
    seed = checked_seed(seed)
    if not isinstance(budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"budget: expected a Budget, as Budget(macs=0.5), got {type(budget).__name__}"
        )
    tuning = options_of(reconstruction)
    for name, one, method in (("progress", progress, "task"), ("stop", stop, "check")):
        if one is not None and not callable(getattr(one, method, None)):
            raise InputError(f"{name}: expected an object with `{method}`, got {one!r:.40}")
    _check_functions(
        forward=forward,
        outputs=outputs,
        loss=loss,
        evaluate=evaluate,
        latency=latency,
        train=train,
    )
    settings = Settings.now()
    with settings.put_aside(unwrapped(model)):
        network = open_attention(own_copy(model))
        keep_whole = _ignored(ignore, unwrapped(model))
        calibration, held_out = settings.within(read_batches)(loader, network, num_samples, forward)
        for part in _of_each_shape([*calibration, *held_out]):
            settings.within(check_runs)(network, part, forward, outputs)
        hooks = Hooks(
            run=settings.within(run_with(forward, outputs)),
            loss=None if loss is None else settings.within(loss_with(forward, loss)),
            evaluate=None if evaluate is None else settings.within(partial(_evaluated, evaluate)),
            latency=None if latency is None else settings.within(partial(_share, latency)),
            keep_whole=keep_whole,
            ratios=_checked_ratios(ratios),
            train=None
            if train is None
            else settings.within(partial(_train_with, train, unwrapped(model))),
            norm_widths=norm_widths,
        )
        done = prune_to_budget(
            network,
            calibration,
            held_out,
            budget,
            hooks,
            reconstruction=tuning,
            name=type(network).__name__,
            seed=seed,
            stop=stop,
            progress=progress,
        )
        pruned, half = done.model, half_type(model)
        if half is not None:
            pruned = pruned.to(half)
        _pack(pruned)
        as_unsaved(pruned, unwrapped(model))
        pruned.train(model.training)
    return PrunedModel(
        pruned,
        done.channels,
        _report(done),
        done.groups.not_pruned,
        shapes_of(network),
        changed_attributes(network, done.model, done.groups.found),
    )


def _of_each_shape(batches: Sequence[Batch]) -> list[Batch]:
    """Some samples of the first batch of each size and type that the samples have."""
    found: dict[tuple[object, ...], Batch] = {}
    for batch in batches:
        part = samples(batch, slice(0, CHECKED))
        tensors = tensors_of(given(part))
        found.setdefault(tuple((t.shape[1:], t.dtype) for t in tensors), part)
    return list(found.values())


def _checked_ratios(ratios: Mapping[str, float] | None) -> dict[str, float]:
    shares: Any = {} if ratios is None else ratios
    if not isinstance(shares, Mapping):
        raise InputError(f"ratios: expected shares by name, got {type(shares).__name__}")
    for name, share in shares.items():
        if not isinstance(name, str) or isinstance(share, bool) or not isinstance(share, Real):
            raise InputError(
                f"ratios: expected names and shares 0..1, got {name!r:.40}: {share!r:.40}"
            )
    return {name: float(share) for name, share in shares.items()}


def _check_functions(**functions: object) -> None:
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InputError(f"{name}: expected a function, got {type(function).__name__}")


def _evaluated(evaluate: Callable[[nn.Module], float], model: nn.Module) -> float:
    """What an evaluation of the user's gives: it may change the copy that it gets."""
    return _number("evaluate", evaluate(copied(model)))


def _share(
    latency: Callable[[nn.Module, nn.Module], float], model: nn.Module, pruned: nn.Module
) -> float:
    return _number("latency", latency(model, pruned))


def _number(name: str, found: Any) -> float:
    """What a function of the user's gave, which has to be one number."""
    try:
        value = float(found)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected a number, got {type(found).__name__}") from None
    if not math.isfinite(value):
        raise InputError(f"{name}: expected a number, got {'NaN' if math.isnan(value) else value}")
    return value


def _pack(model: nn.Module) -> None:
    """Store every parameter without gaps, as after loading: kernels round by layout."""
    for parameter in model.parameters():
        data = parameter.data
        if not data.is_contiguous() and not (
            data.ndim == 4 and data.is_contiguous(memory_format=torch.channels_last)
        ):
            parameter.data = data.contiguous()


def _train_with(
    train: Callable[[nn.Module, nn.Module], nn.Module | None],
    model: nn.Module,
    found: Pruned,
    whole: nn.Module,
) -> nn.Module:
    for one in (found.model, whole):
        as_unsaved(one, model)
    trained: Any = train(found.model, whole)
    if trained is not None and not isinstance(trained, nn.Module):
        given = type(trained).__name__
        raise InputError(f"train: expected the pruned model or None to be returned, got {given}")
    result = unwrapped(found.model if trained is None else trained)
    shapes, expected = shapes_of(result), shapes_of(found.model)
    for name in (*expected, *shapes):
        now, before = shapes.get(name, "nothing"), expected.get(name, "nothing")
        if now != before:
            raise InputError(
                f"train: its model is not the pruned one: {name} has {now}, expected {before}"
            )
    for name, parameter in result.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise InputError(f"train: {name} has values that are not finite (NaN or infinite)")
    return result


def _ignored(ignore: Ignored, model: nn.Module) -> Callable[[str], bool]:
    """Whether a layer is one of those that stay whole, or within one of them."""
    if isinstance(ignore, str | type | nn.Module) or not isinstance(ignore, Iterable):  # pyright: ignore
        raise InputError("ignore: expected a list of paths, modules or types of modules")
    modules = dict(model.named_modules())
    paths: set[str] = set()
    for entry in ignore:
        if isinstance(entry, str):
            found = {path for path in modules if fnmatchcase(path, entry)}
        elif isinstance(entry, type):
            found = {path for path, module in modules.items() if isinstance(module, entry)}
        else:
            found = {path for path, module in modules.items() if module is entry}
        if not found and not isinstance(entry, type):
            raise InputError(f"ignore: the model has no module {entry!r:.80}")
        paths |= found
    return lambda path: any(path == one or path.startswith(f"{one}.") for one in paths)


def _report(done: PrunedToBudget) -> dict[str, Any]:
    """What the pruning did, as plain data; costs are fractions of the unpruned network's."""
    return {
        "macs": done.cost.macs,
        "parameters": done.cost.parameters,
        "groups": [
            {
                "name": group.name,
                "num_units": group.num_units,
                "num_kept": len(done.result.survivors.get(group.name, range(group.num_units))),
            }
            for group in done.groups.found
        ],
        "not_pruned": [
            {"name": left.name, "reason": left.reason} for left in done.groups.not_pruned
        ],
        "predicted_loss": done.chosen.loss,
        "change": done.change.relative,
        "alarm": done.outcome.alarm,
        "reconstruction": None if done.reconstruction is None else done.reconstruction.to_json(),
        "parity": done.parity,
        "seconds": done.seconds,
    }
