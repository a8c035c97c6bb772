"""Options that say which network is used, and on which device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from secateurs.cli.options.panels import NETWORK, suggest, within
from secateurs.limits import LIMITS
from secateurs.paths import weights_path

Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="A classifier of torchvision or timm.", rich_help_panel=NETWORK
    ),
]
OneBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="One network, in the place of --backbones. [default with --layers: alexnet]",
        rich_help_panel=NETWORK,
    ),
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
        metavar="auto|all|5,6",
        help="Numbers of frozen layers to try. [default: auto; alexnet: 3,5,7, all in full]",
        rich_help_panel=NETWORK,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of frozen layers with weights, counted from the input. [default: 5 of "
        "AlexNet, of other networks about half of their parts]",
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
ImageSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Side of the network's input. [default: the backbone's own]",
        callback=within(LIMITS["image_size"]),
        rich_help_panel=NETWORK,
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


@dataclass(frozen=True)
class NetworkOptions:
    """Where a network starts, what it receives, and on which device."""

    weights: Weights = "auto"
    resize: Resize = "straight"
    image_size: ImageSize = None
    precision: Precision = None
    device: Device = "auto"
