"""The command `grid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from secateurs.cli.options.data import Data, Model, OwnSplitOptions
from secateurs.cli.options.network import OwnDevice
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import DATA, PRUNING, suggest
from secateurs.cli.options.pruning import OwnLayer
from secateurs.cli.parsing.session import open_session
from secateurs.errors import InputError


def grid(
    context: typer.Context,
    *,
    model: Model,
    data: Data,
    out: StudyOut = Path("studies/MODEL-grid"),
    layer: OwnLayer = None,
    angles_deg: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Angles in degrees below which two units are similar; above 180 less the angle "
            "they are opposite. [default: 7.5,10,12.5,15,17.5]",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    norm_stds: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Only units whose norm is so many standard deviations from the mean; 0 is every "
            "unit. [default: 1 to 5 in steps of 0.5]",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="pairwise (remove, compensate) or published (the program of the paper).",
            rich_help_panel=PRUNING,
            autocompletion=suggest("pairwise", "published"),
        ),
    ] = "pairwise",
    compensation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="drop, add, affine, least_squares or merge. [default: least_squares]",
            rich_help_panel=PRUNING,
            autocompletion=suggest("drop", "add", "affine", "least_squares", "merge"),
        ),
    ] = None,
    side: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Evaluate cells on val or test images; never select a cell by its test accuracy.",
            rich_help_panel=DATA,
            autocompletion=suggest("val", "test"),
        ),
    ] = "val",
    split: OwnSplitOptions,
    device: OwnDevice = None,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Prune one layer at every angle and norm threshold, in one pass over the images.

    5 x 9 cells by default, those of the paper. Writes grid.json, grid.csv and grid.html.
    """
    from secateurs.prune.layer_grid import PAPER_ANGLES, PAPER_STDS, GridOptions
    from secateurs.report.grid.page import write_grid_page
    from secateurs.study.pruning.grid_rows import grid_words
    from secateurs.study.pruning.saved_grid import GridPlan, grid_saved, parse_numbers

    if rule == "published" and compensation is not None:
        raise InputError(
            "compensation: the published rule changes incoming weights and has none; leave it out"
        )
    chosen: dict[str, Any] = {"rule": rule, "compensation": compensation or "least_squares"}
    options = GridOptions(
        angles_deg=PAPER_ANGLES if angles_deg is None else parse_numbers(angles_deg, "angles-deg"),
        norm_stds=PAPER_STDS if norm_stds is None else parse_numbers(norm_stds, "norm-stds"),
        **chosen,
    )
    session = open_session(session_options, context)
    answer = grid_saved(
        model,
        data,
        GridPlan(options, layer=layer, side=side),
        out,
        changes=vars(split) | {"device": device},
        cache=session.cache,
        overwrite=overwrite,
        progress=session.progress,
    )
    answer = session.keep(out, "grid.json", answer, sealed=True)
    page = write_grid_page(answer, out, model=model, data=data)
    session.answer(answer, f"{grid_words(answer)}\npage: {page}")
