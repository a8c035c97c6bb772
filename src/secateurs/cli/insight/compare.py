"""The command `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Model, OwnData, OwnSplitOptions
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import DATA, suggest
from secateurs.cli.parsing.session import open_session
from secateurs.paths import model_path


def compare(
    context: typer.Context,
    *,
    model: Model,
    other: Annotated[
        Path,
        typer.Argument(
            metavar="OTHER",
            help="Another folder with model.json, or directory of a study.",
            callback=model_path,
        ),
    ],
    data: OwnData = None,
    out: StudyOut = Path("studies/MODEL-compared"),
    side: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Compare on test or val images.",
            rich_help_panel=DATA,
            autocompletion=suggest("test", "val"),
        ),
    ] = "test",
    split: OwnSplitOptions,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Compare two models or studies on the same images: accuracy in pairs, size and time.

    Images that one of them was trained or chosen on are left out. Writes comparison.json and
    comparison.html.
    """
    from secateurs.errors import InputError
    from secateurs.report.insight.compare_page import compare_words, write_compare_page
    from secateurs.study.insight.compare import compare_saved
    from secateurs.study.saved.location import images_of

    if side not in ("val", "test"):
        raise InputError(f"side must be val or test, got {side!r}")
    session = open_session(session_options, context)
    images = images_of(model, data, command="compare MODEL OTHER")
    record = compare_saved(
        model,
        other,
        images,
        out,
        side=side,
        changes=vars(split),
        cache=session.cache,
        overwrite=overwrite,
        progress=session.progress,
    )
    record = session.keep(out, "comparison.json", record)
    page = write_compare_page(record, out)
    session.answer(record, f"{compare_words(record)}\npage: {page}")
