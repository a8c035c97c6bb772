"""The command `faces`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.output import Config, ProgressMode, Quiet
from secateurs.cli.options.panels import DATA, OUTPUT, within
from secateurs.cli.parsing.session import session_of
from secateurs.errors import InputError
from secateurs.limits import LIMITS
from secateurs.paths import output_directory


def faces(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Same as --out.", callback=output_directory),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="A new or empty folder, for example --out images/faces.",
            callback=output_directory,
            rich_help_panel=OUTPUT,
        ),
    ] = Path("faces-675"),
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Seed of the scenes.",
            callback=within(LIMITS["seed"]),
            rich_help_panel=DATA,
        ),
    ] = 0,
    config: Config = None,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Write the embedded set of 675 rendered faces as a folder of images."""
    from secateurs.data.faces.dataset import write_faces

    if directory is not None and out != Path("faces-675"):
        raise InputError(f"{directory} and --out {out}: give one directory")
    session = session_of(None, quiet=quiet, progress=progress, context=context)
    print(write_faces(directory or out, seed=seed, progress=session.progress))
