"""Options of a study over several networks: the candidates, and what the answer has to meet."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.panels import NETWORK, OUTPUT, suggest, within
from secateurs.limits import LIMITS

Backbones = Annotated[
    str,
    typer.Option(
        metavar="auto|NAME,...",
        help="Networks to choose from; auto: a short list over sizes, of those whose weights can "
        "be had.",
        rich_help_panel=NETWORK,
    ),
]
MaxMb = Annotated[
    float | None,
    typer.Option(
        metavar="MB",
        help="Largest file of weights, in 10^6 bytes. [default: any]",
        callback=within(LIMITS["max_mb"]),
        rich_help_panel=NETWORK,
    ),
]
MaxMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        help="Longest time for --batch images in PyTorch on this device, in milliseconds. "
        "[default: any]",
        callback=within(LIMITS["max_ms"]),
        rich_help_panel=NETWORK,
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Images at a time when networks are timed.",
        callback=within(LIMITS["batch"]),
        rich_help_panel=NETWORK,
    ),
]
EarlierDepths = Annotated[
    bool,
    typer.Option(
        "--earlier-depths/--no-earlier-depths",
        help="Let a network's head also read features of earlier depths, where the probe gains by "
        "them.",
        rich_help_panel=NETWORK,
    ),
]
Refit = Annotated[
    str,
    typer.Option(
        metavar="all|train",
        help="Training of the recommended network once it is chosen: once more, on training and "
        "validation images together, or none.",
        rich_help_panel=NETWORK,
        autocompletion=suggest("all", "train"),
    ),
]
Int8Files = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8",
        help="Also write an int8 file of the recommended network (with onnxruntime).",
        rich_help_panel=OUTPUT,
    ),
]
