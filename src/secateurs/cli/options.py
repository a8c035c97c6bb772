"""The command line's options and what they mean, shared by the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from secateurs.limits import LIMITS, Range, check_number
from secateurs.paths import data_path, group_by_path, model_path, output_directory, weights_path


def within(limits: Range) -> Callable[[typer.CallbackParam, Any], Any]:
    """What checks an option's number while the command line is read; None was not given."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            check_number(max(param.opts, key=len), value, limits)
        return value

    return check


# A negative number stands for no limit on the command line; see `from_preset`.
SIGNED_LOSS = Range(-100, 100)
VIEWS = Range(0, LIMITS["views"].high, whole=True)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one folder per class, or the word faces (embedded set).",
        callback=data_path,
    ),
]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="Folder with model.json, or a study's.", callback=model_path
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Where results are written.", callback=output_directory
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        help="On stderr: rich (bars with time left), plain (lines), json (an object a line), none, "
        "or auto: rich on a terminal, else plain.",
    ),
]
LogTo = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="tensorboard|mlflow",
        help="Also log curves, parameters and final numbers of every trial: to DIR/tensorboard, or "
        "to $MLFLOW_TRACKING_URI or else DIR/mlflow.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Cache folder. [default: $SECATEURS_CACHE or ~/.cache/secateurs]"),
]
Strict = Annotated[bool, typer.Option("--strict", help="Audit findings are an error.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[
    int,
    typer.Option(help="Seed of split, views, weights and order.", callback=within(LIMITS["seed"])),
]
SplitRule = Annotated[
    str,
    typer.Option(
        "--split",
        help="random (60/20/20, groups kept whole), ungrouped (random, groups only counted), "
        "paper, folders (train, val and test folders), or auto: folders where the tree has them, "
        "else random.",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX|CSV",
        help="Keep groups on one side: a regular expression on the file name, whose first group "
        "names the group, or a CSV file with columns name and group.",
        callback=group_by_path,
    ),
]
Preset = Annotated[str, typer.Option(help="quick (minutes) or full (hours).")]
Depths = Annotated[
    str | None,
    typer.Option(metavar="0-7|5,6", help="Frozen layers to try. [default: 3,5,7; all in full]"),
]
Runs = Annotated[
    int | None,
    typer.Option(help="Runs a depth. [default: 2; 5 in full]", callback=within(LIMITS["runs"])),
]
ScratchRuns = Annotated[
    int | None,
    typer.Option(
        help="Runs with random weights. [default: 1; 5 in full]",
        callback=within(LIMITS["scratch_runs"]),
    ),
]
Backbone = Annotated[str, typer.Option(help="A torchvision classifier.")]
Weights = Annotated[
    str,
    typer.Option(
        metavar="auto|none|FILE",
        help="Pretrained weights; none is random.",
        callback=weights_path,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Epochs. [default: 20; 30 in full]", callback=within(LIMITS["epochs"])),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Adam's learning rate. [default: 1e-4]", callback=within(LIMITS["lr"])),
]
BatchSize = Annotated[
    str | None, typer.Option(metavar="N|full", help="Images a step. [default: 64]")
]
WeightDecay = Annotated[
    float, typer.Option(help="L2 weight decay.", callback=within(LIMITS["weight_decay"]))
]
LabelSmoothing = Annotated[
    float, typer.Option(help="Label smoothing, 0..1.", callback=within(LIMITS["label_smoothing"]))
]
Dropout = Annotated[str, typer.Option(help="on, off or first-epoch.")]
Patience = Annotated[
    int | None,
    typer.Option(
        help="Stop after so many epochs without a better one. [default: never]",
        callback=within(LIMITS["patience"]),
    ),
]
Views = Annotated[
    int | None,
    typer.Option(
        help="Augmented views of each image, shared by epochs; 0 draws a new one in every epoch. "
        "[default: 2; 0 in full]",
        callback=within(VIEWS),
    ),
]
Resize = Annotated[
    str, typer.Option(help="Evaluation: straight to size, or crop (short side, then centre).")
]
Precision = Annotated[str | None, typer.Option(help="auto, float32 or bfloat16. [default: auto]")]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Linear layers to prune, by name, with commas. [default: the hidden one that feeds "
        "the head, fc7 of AlexNet]"
    ),
]
OwnLayer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        help="The linear layer to cut, by name. [default: the hidden one that feeds the head, fc7 "
        "of AlexNet]",
    ),
]
Low = Annotated[
    float | None,
    typer.Option(
        help="Angle in degrees below which two units are one. [default: 15]",
        callback=within(LIMITS["low_deg"]),
    ),
]
High = Annotated[
    float | None,
    typer.Option(
        help="Angle in degrees above which two units are opposite. [default: 165]",
        callback=within(LIMITS["high_deg"]),
    ),
]
MaxLoss = Annotated[
    float,
    typer.Option(
        help="Points of validation accuracy that pruning may cost: the fewest units within it are "
        "kept, or with rules by angle those of the largest angle up to --low; a negative number "
        "takes --low as it is. Not used with --keep.",
        callback=within(SIGNED_LOSS),
    ),
]
Rotation = Annotated[
    float | None,
    typer.Option(
        help="Views rotate so many degrees. [default: 0; 10 in full]",
        callback=within(LIMITS["rotation_deg"]),
    ),
]
MinScale = Annotated[
    float | None,
    typer.Option(
        help="Smallest share of an image in a view, 0..1. [default: 1; 0.5 in full]",
        callback=within(LIMITS["min_scale"]),
    ),
]
Schedule = Annotated[
    str | None, typer.Option(help="Learning rate: constant or cosine. [default: cosine]")
]
Augment = Annotated[bool, typer.Option(help="Train on augmented views.")]
Std = Annotated[
    float | None,
    typer.Option(
        help="Only units whose norm is so many deviations from the mean. [default: all]",
        callback=within(LIMITS["norm_std"]),
    ),
]
Compensation = Annotated[
    str,
    typer.Option(
        help="What the survivors' weights become: merge (mean incoming weights of a group, "
        "outgoing ones refitted), least_squares (outgoing ones refitted), affine, add or drop."
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="Which units survive: cluster (groups by angle), pairwise or subspace (by an angle), "
        "complementary, dead, random, l1, l2, variance, geometric_median or taylor. "
        "[default: cluster; pairwise with --low, --high or --std]"
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="N|N,N", help="Units that survive in each layer, or one number a layer as they run."
    ),
]
KeepFraction = Annotated[
    float | None,
    typer.Option(
        help="Share of each layer's units that survive, 0..1.",
        callback=within(LIMITS["keep_fraction"]),
    ),
]
CacheBudget = Annotated[
    float,
    typer.Option(
        help="GiB for outputs of frozen layers; beyond it they are computed anew.",
        callback=within(LIMITS["cache_budget"]),
    ),
]
CacheIn = Annotated[
    str,
    typer.Option(
        help="Where those are kept: memory, disk (files in DIR that several processes share, "
        "removed in the end) or keep (files that are left)."
    ),
]


OwnSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="auto, random, ungrouped, paper or folders. [default: as the model was trained]",
    ),
]
OwnSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Seed of the split. [default: as the model's]",
        callback=within(LIMITS["seed"]),
    ),
]

Params = Annotated[
    float | None,
    typer.Option(
        help="Whole network: share of the parameters that may stay, 0..1.",
        callback=within(LIMITS["params"]),
    ),
]
Macs = Annotated[
    float | None,
    typer.Option(
        help="Whole network: share of the multiply-accumulates that may stay, 0..1.",
        callback=within(LIMITS["macs"]),
    ),
]
Latency = Annotated[
    float | None,
    typer.Option(
        help="Whole network: share of the time, measured here, that may stay, 0..1.",
        callback=within(LIMITS["latency"]),
    ),
]
LatencyBatch = Annotated[
    int,
    typer.Option(help="Images at a time for --latency.", callback=within(LIMITS["latency_batch"])),
]
RoundTo = Annotated[
    int,
    typer.Option(
        help="Whole network: every group's channels a multiple of it.",
        callback=within(LIMITS["round_to"]),
    ),
]
Starts = Annotated[
    int,
    typer.Option(
        help="Whole network: random starts for the groups that are merged; validation decides.",
        callback=within(LIMITS["starts"]),
    ),
]
Recover = Annotated[
    int,
    typer.Option(
        help="Whole network: epochs of training after the cut, taught by the unpruned network.",
        callback=within(LIMITS["recover"]),
    ),
]
RecoverLr = Annotated[
    float | None,
    typer.Option(
        help="Adam's learning rate of that training  [default: 0.001 where the network has batch "
        "norm, 0.0003 elsewhere]",
        callback=within(LIMITS["lr"]),
    ),
]
RecoverDistil = Annotated[
    float,
    typer.Option(
        help="Share of that training's loss that the unpruned network's answers have; the labels "
        "have the rest.",
        callback=within(LIMITS["distil"]),
    ),
]
