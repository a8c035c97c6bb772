"""The command `predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import AnyModel
from secateurs.cli.options.output import AsJson, Config, FileOut, ProgressMode, Quiet, Threshold
from secateurs.cli.options.panels import OUTPUT, suggest, within
from secateurs.cli.parsing.session import session_of
from secateurs.errors import InputError
from secateurs.limits import LIMITS
from secateurs.paths import existing_paths
from secateurs.wording import counted


def predict(
    context: typer.Context,
    model: AnyModel,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, and folders of them.",
            callback=existing_paths,
        ),
    ],
    top: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Classes per image, most probable first.",
            callback=within(LIMITS["top"]),
            rich_help_panel=OUTPUT,
        ),
    ] = 3,
    threshold: Threshold = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="text|csv|jsonl|json",
            help="One line per image, CSV, one JSON object per line, or one JSON object. "
            "[default: by the ending of FILE, else text]",
            rich_help_panel=OUTPUT,
            autocompletion=suggest("text", "csv", "jsonl", "json"),
        ),
    ] = None,
    out: FileOut = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Class probabilities of images under a saved model, an exported file, or the model of a study.

    A file that cannot be used is listed with its error, and the exit code is then 1.
    """
    from secateurs.files import atomic_path
    from secateurs.study.saved.prediction_output import format_of, write_predictions

    if as_json and kind not in (None, "json"):
        raise InputError(f"--json and --format {kind} are two formats; give one of them")
    kind = format_of("json" if as_json else kind, out)
    session = session_of(None, quiet=quiet, progress=progress, context=context)

    from secateurs.study.saved.prediction import list_images, predictions
    from secateurs.study.saved.prediction_model import open_classifier

    listed = list_images(images)
    for text in listed.notes:
        session.progress.note(text)
    rows = predictions(
        open_classifier(model, threshold=threshold),
        listed.files,
        top=top,
        progress=session.progress,
    )
    if out is None:
        num_errors = write_predictions(rows, sys.stdout, kind=kind, top=top)
    else:
        with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            num_errors = write_predictions(rows, file, kind=kind, top=top)
        print(out)
    if num_errors:
        amount = counted(len(listed.files), "image")
        session.progress.note(f"{num_errors} of {amount} could not be used")
        raise typer.Exit(1)
