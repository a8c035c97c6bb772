"""Options of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateurs.cli.options.panels import TRAINING, suggest, within
from secateurs.limits import LIMITS, Range

if TYPE_CHECKING:
    from secateurs.fit.cache import PrefixCache

# 0 on the command line is a new view in every epoch, see `from_preset`.
_VIEWS = Range(0, LIMITS["views"].high, whole=True)

Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="quick (few trainings) or full (many: hours).",
        rich_help_panel=TRAINING,
        autocompletion=suggest("quick", "full"),
    ),
]
Runs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Runs per depth. [default: 2; 5 in full]",
        callback=within(LIMITS["runs"]),
        rich_help_panel=TRAINING,
    ),
]
ScratchRuns = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Runs from random weights, for comparison. [default: 1; 5 in full; of a study over "
        "several networks 0]",
        callback=within(LIMITS["scratch_runs"]),
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Epochs. [default: 20; 30 in full]",
        callback=within(LIMITS["epochs"]),
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Learning rate of Adam. [default: 1e-4]",
        callback=within(LIMITS["lr"]),
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    str | None,
    typer.Option(metavar="N|full", help="Images per step. [default: 64]", rich_help_panel=TRAINING),
]
WeightDecay = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="L2 weight decay.",
        callback=within(LIMITS["weight_decay"]),
        rich_help_panel=TRAINING,
    ),
]
LabelSmoothing = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Label smoothing, 0..1.",
        callback=within(LIMITS["label_smoothing"]),
        rich_help_panel=TRAINING,
    ),
]
Dropout = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="on, off or first-epoch.",
        rich_help_panel=TRAINING,
        autocompletion=suggest("on", "off", "first-epoch"),
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Stop after N epochs without improvement on validation. [default: never]",
        callback=within(LIMITS["patience"]),
        rich_help_panel=TRAINING,
    ),
]
Views = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Augmented views of each image, shared by all epochs; 0 draws a new one in every "
        "epoch. [default: 2; 0 in full]",
        callback=within(_VIEWS),
        rich_help_panel=TRAINING,
    ),
]
Augment = Annotated[bool, typer.Option(help="Train on augmented views.", rich_help_panel=TRAINING)]
RotationDeg = Annotated[
    float | None,
    typer.Option(
        metavar="DEG",
        help="Largest rotation of a view, in degrees. [default: 0; 10 in full]",
        callback=within(LIMITS["rotation_deg"]),
        rich_help_panel=TRAINING,
    ),
]
MinScale = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Smallest fraction of an image in a view, 0..1. [default: 1; 0.5 in full]",
        callback=within(LIMITS["min_scale"]),
        rich_help_panel=TRAINING,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Learning rate: constant or cosine. [default: cosine]",
        rich_help_panel=TRAINING,
        autocompletion=suggest("constant", "cosine"),
    ),
]
LayerDecay = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Learning rate of the first trained layer as a share of the last one's. [default: 1]",
        callback=within(LIMITS["layer_decay"]),
        rich_help_panel=TRAINING,
    ),
]
L2Sp = Annotated[
    float | None,
    typer.Option(
        "--l2-sp",
        metavar="X",
        help="Pull of the weights towards the pretrained ones. [default: 0]",
        callback=within(LIMITS["l2_sp"]),
        rich_help_panel=TRAINING,
    ),
]
Mixup = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="Mix each image with another, by Beta(ALPHA, ALPHA). [default: 0]",
        callback=within(LIMITS["mixup"]),
        rich_help_panel=TRAINING,
    ),
]
AverageWeights = Annotated[
    float | None,
    typer.Option(
        "--average",
        metavar="X",
        help="Decay of a running average of the weights, which is kept. [default: 0, none]",
        callback=within(LIMITS["average"]),
        rich_help_panel=TRAINING,
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Weights of the classes in the loss: none or balanced. [default: none]",
        rich_help_panel=TRAINING,
        autocompletion=suggest("none", "balanced"),
    ),
]
Norms = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Batch norms: trained, fixed, or auto: fixed with pretrained weights. [default: auto]",
        rich_help_panel=TRAINING,
        autocompletion=suggest("auto", "trained", "fixed"),
    ),
]
CacheBudget = Annotated[
    float,
    typer.Option(
        metavar="GIB",
        help="Memory or disk for outputs of frozen layers; beyond it they are computed again.",
        callback=within(LIMITS["cache_budget"]),
        rich_help_panel=TRAINING,
    ),
]
CacheIn = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="Where these outputs are kept: memory, disk (files in the output directory that "
        "several processes share, removed at the end) or keep (files that stay).",
        rich_help_panel=TRAINING,
        autocompletion=suggest("memory", "disk", "keep"),
    ),
]


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is fine-tuned."""

    epochs: Epochs = None
    lr: LearningRate = None
    batch_size: BatchSize = None
    weight_decay: WeightDecay = 0.0
    label_smoothing: LabelSmoothing = 0.0
    dropout: Dropout = "on"
    patience: Patience = None
    schedule: Schedule = None
    layer_decay: LayerDecay = None
    l2_sp: L2Sp = None
    mixup: Mixup = None
    average: AverageWeights = None
    class_weights: ClassWeights = None
    norms: Norms = None


@dataclass(frozen=True)
class ViewOptions:
    """The augmented views of a training image."""

    views: Views = None
    augment: Augment = True
    rotation_deg: RotationDeg = None
    min_scale: MinScale = None


@dataclass(frozen=True)
class PrefixOptions:
    """Where the outputs of frozen layers are kept."""

    cache_budget: CacheBudget = 2.0
    cache_in: CacheIn = "memory"

    def open(self, out: Path) -> PrefixCache:
        """The cache of a command that writes into `out`."""
        from secateurs.study.trials.trial import prefix_cache

        return prefix_cache(out, self.cache_budget, self.cache_in)
