"""Options that say where results go and what is printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from secateurs.cli.options.data import Cache
from secateurs.cli.options.panels import OUTPUT, suggest, within
from secateurs.limits import LIMITS
from secateurs.paths import output_directory, output_file


def _directory(param: typer.CallbackParam, out: Path | None) -> Path | None:
    # A default still has the name of an argument in it, see `parsing.destinations`.
    return out if out == param.default else output_directory(out)


def out_option(example: str) -> Any:
    """`--out DIR` of a command, with an example of its value."""
    return typer.Option(
        "--out",
        metavar="DIR",
        help=f"Directory for the results, for example --out {example}.",
        callback=_directory,
        rich_help_panel=OUTPUT,
    )


StudyOut = Annotated[Path, out_option("studies/photos")]
ModelOut = Annotated[Path, out_option("models/photos")]
FileOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write to this file, for example --out results.csv. [default: standard output]",
        callback=output_file,
        rich_help_panel=OUTPUT,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Least probability of an answer, 0..1; below it the model does not know. "
        "[default: that of the model, see trust --save-threshold]",
        callback=within(LIMITS["threshold"]),
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the results of an earlier run in the output directory; other files stay.",
        rich_help_panel=OUTPUT,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Read options from a file; options on the command line take precedence.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="No progress on stderr.", rich_help_panel=OUTPUT)
]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="MODE",
        help="Progress on stderr: rich (bars with time remaining), plain (lines), json (one object "
        "per line), none, or auto: rich on a terminal, else plain.",
        rich_help_panel=OUTPUT,
        autocompletion=suggest("auto", "rich", "plain", "json", "none"),
    ),
]
LogTo = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="tensorboard|mlflow",
        help="Also log curves, parameters and final metrics of every trial: to DIR/tensorboard, or "
        "to $MLFLOW_TRACKING_URI or else DIR/mlflow.",
        rich_help_panel=OUTPUT,
        autocompletion=suggest("tensorboard", "mlflow"),
    ),
]


@dataclass(frozen=True)
class SessionOptions:
    """What a command takes beside its own options."""

    cache: Cache = None
    config: Config = None
    as_json: AsJson = False
    quiet: Quiet = False
    progress: ProgressMode = "auto"
