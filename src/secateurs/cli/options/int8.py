"""Options of an export to 8-bit integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.panels import QUANTIZATION, suggest, within
from secateurs.limits import LIMITS
from secateurs.paths import model_path


def _original(original: Path | None) -> Path | None:
    return original if original is None else model_path(original)


Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Quantize to 8-bit integers for ONNX Runtime, calibrated on the training images, "
        "and compare size, accuracy and time with float32.",
        rich_help_panel=QUANTIZATION,
    ),
]
Int8Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="compensated (weights rounded and biases corrected for what each layer receives), "
        "static (ONNX Runtime's own), or dynamic (linear layers only, no calibration).",
        rich_help_panel=QUANTIZATION,
        autocompletion=suggest("compensated", "static", "dynamic"),
    ),
]
Agreement = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Share of the answers that must agree with float32, 0..1: sensitive layers stay in "
        "float32 until it is reached.",
        callback=within(LIMITS["agreement"]),
        rich_help_panel=QUANTIZATION,
    ),
]
Calibration = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Training images for the calibration of int8.",
        callback=within(LIMITS["calibration"]),
        rich_help_panel=QUANTIZATION,
    ),
]
Original = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL",
        help="The model before pruning, to compare int8 with. [default: a study's own]",
        callback=_original,
        rich_help_panel=QUANTIZATION,
    ),
]
