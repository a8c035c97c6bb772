"""Pruning a trained network on its training images: the tail is cut, the whole network follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.fit.inputs import prefix_outputs
from secateurs.fit.metrics import predict_logits
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.layer import PrunedLayer, apply_cut, prune_layers
from secateurs.prune.ledger import Ledger
from secateurs.prune.selection.rules import BY_NUMBER
from secateurs.prune.statistics.activations import collect
from secateurs.prune.surgery.removal import find_consumer
from secateurs.study.pruning.merged_units import Merged, merged_groups
from secateurs.study.setup.config import StudyConfig, per_layer
from secateurs.study.setup.defaults import check_hidden, hidden_layers, no_layer_words

ANGLE_STEP_DEG = 0.5
BATCH = 256

SMALLEST = 1 / 512  # eight units of 4096
MOST_FRACTIONS = 9 + 3  # doublings of the smallest to all units, bisections to a tenth

Cuts = tuple[PrunedLayer, ...]


@dataclass(frozen=True)
class Found:
    """What a search changes in the options of a cut, and what it saw."""

    options: dict[str, float]
    tried: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Cut:
    """A pruned network, what was done to each layer, and the surviving units by layer path.

    `low_deg` is the angle that was used, None when a number of units decided; `tried` what the
    search saw, one record a cut; `merged` some groups of each layer, on the training images.
    """

    model: nn.Module
    layers: tuple[dict[str, Any], ...]
    kept: dict[str, list[int]]
    ledgers: tuple[Ledger, ...]
    parity: float
    low_deg: float | None
    tried: tuple[dict[str, Any], ...]
    merged: tuple[Merged, ...]
    seconds: float


def prune_network(
    model: nn.Module,
    train: Images,
    val: Images,
    config: StudyConfig,
    *,
    device: torch.device,
    progress: Progress = SILENT,
) -> Cut:
    """Remove similar units of `config.layers`, measured and refitted on `training_inputs`.

    The layers before the first one cut run once; all that follows works on their output. With
    `config.max_loss` (points of validation accuracy) the cut is the largest that costs no more: at
    an angle up to `config.low_deg`, or by rules that go by number at the smallest number of units.
    The model given is not changed. Raises InputError for a layer that is unknown or cannot be
    pruned, before anything is done.
    """
    measured = measure(model, train, val, config, device=device, progress=progress)
    return cut_measured(measured, config, progress=progress)


@dataclass(frozen=True)
class Measured:
    """A network with what its layers to cut receive: all that cutting them needs of the images.

    `inputs` (copies * n, ...) and `val_inputs` (m, ...) are what the tail receives for the
    training images, view by view, and the validation images; the labels are theirs, (n,) and (m,).
    """

    model: nn.Module
    paths: tuple[str, ...]
    aliases: tuple[str, ...]
    prefix: nn.Sequential
    tail: nn.Sequential
    inputs: torch.Tensor
    val_inputs: torch.Tensor
    labels: torch.Tensor
    val_labels: torch.Tensor
    seconds: float

    @property
    def copies(self) -> int:
        """Views of each training image."""
        return len(self.inputs) // len(self.labels)

    @property
    def where(self) -> list[str]:
        """Paths of the layers within the tail."""
        return [tail_path(self.tail, path) for path in self.paths]


def measure(
    model: nn.Module,
    train: Images,
    val: Images,
    config: StudyConfig,
    *,
    device: torch.device,
    progress: Progress = SILENT,
) -> Measured:
    """Run what comes before the first of `config.layers` once, on training and validation images.

    Raises InputError for a layer that is unknown or cannot be pruned, before anything is run.
    """
    started = time.perf_counter()
    paths, aliases = layers_to_cut(model, config)
    order = [layer.path for layer in layers(model, config.backbone)]
    prefix, tail = split_at(model.eval(), config.backbone, order.index(paths[0]))
    with progress.task(
        "inputs of the pruned layers", (1 + config.augment) * len(train) + len(val)
    ) as advance:
        inputs = training_inputs(train, prefix, config, device=device, advance=advance)
        val_inputs = prefix_outputs(val, prefix, device=device, advance=advance)
    return Measured(
        model=model,
        paths=tuple(paths),
        aliases=tuple(aliases),
        prefix=prefix,
        tail=tail,
        inputs=inputs,
        val_inputs=val_inputs,
        labels=torch.from_numpy(train.labels),
        val_labels=torch.from_numpy(val.labels),
        seconds=time.perf_counter() - started,
    )


def cut_measured(measured: Measured, config: StudyConfig, *, progress: Progress = SILENT) -> Cut:
    """The rest of `prune_network`, for any configuration with the same layers."""
    started = time.perf_counter()
    paths, copies = measured.paths, measured.copies
    answers = measured.labels.repeat(copies)
    base = [replace(own, copies=copies) for own in config.prune_options(len(paths))]

    def cut_with(**changes: Any) -> Cuts:
        options = [replace(own, **changes) for own in base]
        return prune_layers(
            measured.tail, measured.where, measured.inputs, options=options, labels=answers
        )

    def accuracy(module: nn.Module) -> float:
        right = predict_logits(module, measured.val_inputs).argmax(1) == measured.val_labels
        return float(right.double().mean())

    most = _most_tried(config)
    with progress.task("pruning", most + 1) as advance:
        found = _find(
            cut_with,
            lambda: accuracy(measured.tail),
            accuracy,
            config,
            advance=lambda: advance(1),
        )
        advance(max(0, most - len(found.tried)))  # of a search that ended early
        cuts = cut_with(**found.options)
        advance(1)
    pruned = measured.model
    for path, cut in zip(paths, cuts, strict=True):
        pruned = apply_cut(pruned, path, cut)
    return Cut(
        model=pruned.eval(),
        layers=tuple(_record(*row) for row in zip(measured.aliases, paths, cuts, strict=True)),
        kept={p: cut.selection.survivors.tolist() for p, cut in zip(paths, cuts, strict=True)},
        ledgers=tuple(
            replace(cut.ledger, layer=alias)
            for alias, cut in zip(measured.aliases, cuts, strict=True)
        ),
        parity=max(cut.parity or 0.0 for cut in cuts),
        low_deg=found.options.get("low_deg", config.low_deg if by_angle(config) else None),
        tried=found.tried,
        merged=tuple(_merged(measured.tail, cuts, measured.inputs[: len(measured.labels)])),
        seconds=measured.seconds + time.perf_counter() - started,
    )


def _merged(tail: nn.Module, cuts: Cuts, inputs: Tensor) -> Generator[Merged]:
    """What merged in each layer, on the network as it was when that layer was cut."""
    for before, cut in zip((tail, *(cut.model for cut in cuts)), cuts, strict=False):
        layer, consumer = before.get_submodule(cut.path), find_consumer(before, cut.path)
        with eval_mode(before):
            activations = collect(
                before, layer, inputs.split(BATCH), after=consumer.after, model=before
            )
        yield merged_groups(activations, cut.selection)


def training_inputs(
    train: Images,
    prefix: nn.Module,
    config: StudyConfig,
    *,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> torch.Tensor:
    """What units are measured and refitted on: the prefix's outputs (n, ...) for training images.

    Followed by those for their mirror images, unless training saw no augmentation.
    """
    sides = (False, True) if config.augment else (False,)
    return torch.cat(
        [
            prefix_outputs(train, prefix, device=device, mirrored=mirrored, advance=advance)
            for mirrored in sides
        ]
    )


def layers_to_cut(model: nn.Module, config: StudyConfig) -> tuple[list[str], list[str]]:
    """Paths and aliases of the layers to prune, in the order they run.

    Raises InputError for a layer that is unknown or whose consumer cannot be found.
    """
    order = [layer.path for layer in layers(model, config.backbone)]
    known = {name for layer in layers(model, config.backbone) for name in (layer.alias, layer.path)}
    for text in config.layers:
        if text not in known:
            possible = hidden_layers(model, config.backbone)
            words = f"layers that can be pruned: {', '.join(possible)}"
            try:
                find_layer(model, config.backbone, text)
            except InputError as error:
                ending = words if possible else no_layer_words(config.backbone)
                raise InputError(f"{error}; {ending}") from None
    found = {find_layer(model, config.backbone, text) for text in config.layers}
    for layer in found:
        check_hidden(model, config.backbone, layer.path)
    rows = sorted(found, key=lambda layer: order.index(layer.path))
    for layer, keep in zip(rows, per_layer(config.keep, len(rows)), strict=True):
        module = model.get_submodule(layer.path)
        assert isinstance(module, nn.Linear), "it has a consumer"
        units = module.out_features
        if keep is not None and keep > units:
            raise InputError(f"keep: {layer.alias} has {units} units, got {keep}")
    return [layer.path for layer in rows], [layer.alias for layer in rows]


def by_angle(config: StudyConfig) -> bool:
    """Whether an angle, and no number of units, decides which units go."""
    asked = config.keep is not None or config.keep_fraction is not None
    return not asked and config.rule not in BY_NUMBER


def _searches(config: StudyConfig) -> bool:
    """Whether validation decides how much is pruned."""
    given = config.keep is not None or config.keep_fraction is not None
    return not (given or config.max_loss is None or config.rule == "dead")


def _most_tried(config: StudyConfig) -> int:
    """The largest number of cuts that the search for an angle or a number of units may try."""
    if not _searches(config):
        return 0
    if by_angle(config):
        return len(np.arange(config.low_deg, 0, -ANGLE_STEP_DEG)) + 1
    return MOST_FRACTIONS


def _find(
    cut_with: Callable[..., Cuts],
    before: Callable[[], float],
    accuracy: Callable[[nn.Module], float],
    config: StudyConfig,
    *,
    advance: Callable[[], None],
) -> Found:
    """The options of the largest cut within the loss allowed; none to change without a search."""
    if not _searches(config):
        return Found({}, ())
    assert config.max_loss is not None
    floor = before() - config.max_loss / 100
    tried: list[dict[str, Any]] = []

    def good(**changes: float) -> bool:
        cuts = cut_with(**changes, check_parity=False)
        reached = accuracy(cuts[-1].model)
        kept = sum(len(cut.selection.survivors) for cut in cuts)
        tried.append({**changes, "num_kept": kept, "val_accuracy": reached})
        advance()
        return reached >= floor - 1e-12

    if by_angle(config):
        options = {"low_deg": search_angle(lambda deg: good(low_deg=deg), config.low_deg)}
    else:
        options = {"keep_fraction": search_fraction(lambda part: good(keep_fraction=part))}
    return Found(options, tuple(sorted(tried, key=lambda row: row[next(iter(options))])))


def search_angle(good: Callable[[float], bool], highest_deg: float) -> float:
    """The largest angle, in steps of half a degree, at which the cut is `good`.

    Angles are tried from `highest_deg` downwards, since accuracy does not fall evenly with the
    angle; angle 0, which removes dead units alone, is taken when none is good.

    >>> search_angle(lambda deg: deg < 13.2, 15.0)
    13.0
    """
    for low_deg in [*np.arange(highest_deg, 0, -ANGLE_STEP_DEG).tolist(), 0.0]:
        if good(low_deg) or low_deg == 0:
            return low_deg
    raise AssertionError("angle 0 is always taken")


def search_fraction(good: Callable[[float], bool]) -> float:
    """The smallest fraction of units, within a tenth, to which the cut is `good`.

    Doubled from `SMALLEST` until a cut is good, then bisected between that and the last that was
    not; all units are kept when no smaller cut is good. Few units are quick to try.

    >>> round(search_fraction(lambda part: part > 0.01), 4)
    0.0101
    """
    low, high = 0.0, SMALLEST
    while high < 1 and not good(high):
        low, high = high, min(1.0, 2 * high)
    while low and high / low > 1.1:
        middle = float(np.sqrt(low * high))
        if good(middle):
            high = middle
        else:
            low = middle
    return high


def _record(alias: str, path: str, cut: PrunedLayer) -> dict[str, Any]:
    histogram, selection = cut.histogram, cut.selection
    assert histogram is not None, "not one of a search"
    return {
        "layer": alias,
        "path": path,
        "num_units": selection.num_units,
        "num_kept": len(selection.survivors),
        "num_dead": selection.num_dead,
        "angles": {
            "normalise": histogram.normalise,
            "num_units": histogram.num_units,
            "num_live": histogram.num_live,
        },
        "angle_deg_quantiles": {
            "p01": histogram.p01,
            "p50": histogram.p50,
            "p99": histogram.p99,
        },
        "angle_deg_histogram": {
            "edges": histogram.edges.tolist(),
            "counts": histogram.counts.tolist(),
        },
    }
