"""Options of pruning: of named layers, and of the whole network."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.panels import PRUNING, suggest, within
from secateurs.limits import LIMITS, Range

# A negative number stands for no limit on the command line, see `from_preset`.
_SIGNED_LOSS = Range(-100, 100)
_COUNT = Range(0, 100_000_000, whole=True)  # 0 stands for all

Layers = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Linear layers to prune, by name. [default: the hidden one that feeds the head, fc7 "
        "of AlexNet]",
        rich_help_panel=PRUNING,
    ),
]
OwnLayer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="The linear layer to prune. [default: the hidden one that feeds the head, fc7 of "
        "AlexNet]",
        rich_help_panel=PRUNING,
    ),
]
LowDeg = Annotated[
    float | None,
    typer.Option(
        metavar="DEG",
        help="Units below this angle, in degrees, are similar. [default: 15]",
        callback=within(LIMITS["low_deg"]),
        rich_help_panel=PRUNING,
    ),
]
HighDeg = Annotated[
    float | None,
    typer.Option(
        metavar="DEG",
        help="Units above this angle, in degrees, are opposite. [default: 165]",
        callback=within(LIMITS["high_deg"]),
        rich_help_panel=PRUNING,
    ),
]
NormStd = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Only units whose norm is X standard deviations from the mean. [default: all units]",
        callback=within(LIMITS["norm_std"]),
        rich_help_panel=PRUNING,
    ),
]
MaxLoss = Annotated[
    float,
    typer.Option(
        metavar="POINTS",
        help="Validation accuracy that pruning may cost, in percentage points: the fewest units "
        "within it are kept, or with rules by angle those of the largest angle up to --low-deg; "
        "a negative number takes --low-deg as it is. Not used with --keep.",
        callback=within(_SIGNED_LOSS),
        rich_help_panel=PRUNING,
    ),
]
LossAllowed = Annotated[
    float | None,
    typer.Option(
        "--max-loss",
        metavar="POINTS",
        help="Validation accuracy that the answer may lose to the best network, in percentage "
        "points. With --layers: that pruning may cost; a negative number takes --low-deg as it "
        "is. [default: 1; 2 with --layers]",
        callback=within(_SIGNED_LOSS),
        rich_help_panel=PRUNING,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which units stay: cluster (groups by angle), pairwise or subspace (by an angle), "
        "complementary, dead, random, l1, l2, variance, geometric_median or taylor. "
        "[default: cluster; pairwise with --low-deg, --high-deg or --norm-std]",
        rich_help_panel=PRUNING,
        autocompletion=suggest(
            *("cluster", "pairwise", "subspace", "complementary", "dead", "random", "l1", "l2"),
            *("variance", "geometric_median", "taylor"),
        ),
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="N|N,N",
        help="Units that stay in each layer, or one number per layer in the order in which they "
        "run.",
        rich_help_panel=PRUNING,
    ),
]
KeepFraction = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Fraction of the units of each layer that stay, 0..1.",
        callback=within(LIMITS["keep_fraction"]),
        rich_help_panel=PRUNING,
    ),
]
Compensation = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How the remaining weights change: merge (mean incoming weights of a group, outgoing "
        "ones refitted), least_squares (outgoing ones refitted), affine, add or drop.",
        rich_help_panel=PRUNING,
        autocompletion=suggest("merge", "least_squares", "affine", "add", "drop"),
    ),
]
OwnCompensation = Annotated[
    str | None,
    typer.Option(
        "--compensation",
        metavar="NAME",
        help="How the remaining weights change: merge (mean incoming weights of a group, outgoing "
        "ones refitted), least_squares (outgoing ones refitted), affine, add or drop. "
        "[default: merge]",
        rich_help_panel=PRUNING,
        autocompletion=suggest("merge", "least_squares", "affine", "add", "drop"),
    ),
]
Params = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Whole network: fraction of the parameters that may stay, 0..1.",
        callback=within(LIMITS["params"]),
        rich_help_panel=PRUNING,
    ),
]
Macs = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Whole network: fraction of the multiply-accumulates that may stay, 0..1.",
        callback=within(LIMITS["macs"]),
        rich_help_panel=PRUNING,
    ),
]
Latency = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Whole network: fraction of the latency, measured here, that may stay, 0..1.",
        callback=within(LIMITS["latency"]),
        rich_help_panel=PRUNING,
    ),
]
LatencyBatch = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Batch size at which --latency is measured.",
        callback=within(LIMITS["latency_batch"]),
        rich_help_panel=PRUNING,
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Whole network: the channels of each group are a multiple of N.",
        callback=within(LIMITS["round_to"]),
        rich_help_panel=PRUNING,
    ),
]
Starts = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Whole network: random starts for the units that are merged; validation decides.",
        callback=within(LIMITS["starts"]),
        rich_help_panel=PRUNING,
    ),
]
Calibration = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Whole network: training images, spread over the classes, on which units are scored, "
        "layers refitted and blocks tuned; 0 for all. Recovery uses all.",
        callback=within(_COUNT),
        rich_help_panel=PRUNING,
    ),
]
Reconstruction = Annotated[
    str,
    typer.Option(
        metavar="blocks|off",
        help="Whole network: tune the blocks of the pruned network, without labels, to give what "
        "they gave before.",
        rich_help_panel=PRUNING,
        autocompletion=suggest("blocks", "off"),
    ),
]
RecoveryEpochs = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Whole network: epochs of fine-tuning after pruning, with distillation from the "
        "unpruned network.",
        callback=within(LIMITS["recover"]),
        rich_help_panel=PRUNING,
    ),
]
RecoveryLr = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Learning rate of Adam in the recovery. [default: 0.0003; with batch norms 0.0001 "
        "where they are fixed, 0.001 where trained]",
        callback=within(LIMITS["lr"]),
        rich_help_panel=PRUNING,
    ),
]
RecoveryDistil = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Weight of the distillation in the loss of the recovery, 0..1; the rest is for the "
        "labels.",
        callback=within(LIMITS["distil"]),
        rich_help_panel=PRUNING,
    ),
]
RecoveryNorms = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Batch norms in the recovery: trained, fixed, or auto: as in the training of the "
        "network, and fixed where that had auto.",
        rich_help_panel=PRUNING,
        autocompletion=suggest("auto", "trained", "fixed"),
    ),
]
