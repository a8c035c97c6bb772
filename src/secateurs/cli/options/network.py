"""Options that say which network is used, and on which device."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options.panels import NETWORK, suggest, within
from secateurs.limits import LIMITS
from secateurs.paths import weights_path

Backbone = Annotated[
    str,
    typer.Option(metavar="NAME", help="A torchvision classifier.", rich_help_panel=NETWORK),
]
Weights = Annotated[
    str,
    typer.Option(
        metavar="auto|none|FILE",
        help="Pretrained weights; none starts from random weights.",
        callback=weights_path,
        rich_help_panel=NETWORK,
    ),
]
Depths = Annotated[
    str | None,
    typer.Option(
        metavar="0-7|5,6",
        help="Numbers of frozen layers to try. [default: 3,5,7; all in full]",
        rich_help_panel=NETWORK,
    ),
]
Depth = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Number of frozen layers with weights, counted from the input.",
        callback=within(LIMITS["depth"]),
        rich_help_panel=NETWORK,
    ),
]
Resize = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="Evaluation images: straight (squashed to size) or crop (short side, then centre).",
        rich_help_panel=NETWORK,
        autocompletion=suggest("straight", "crop"),
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="auto, float32 or bfloat16. [default: auto]",
        rich_help_panel=NETWORK,
        autocompletion=suggest("auto", "float32", "bfloat16"),
    ),
]
_DEVICES = suggest("auto", "cpu", "cuda")
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu or cuda.",
        rich_help_panel=NETWORK,
        autocompletion=_DEVICES,
    ),
]
OwnDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="auto, cpu or cuda. [default: as the model was trained]",
        rich_help_panel=NETWORK,
        autocompletion=_DEVICES,
    ),
]
