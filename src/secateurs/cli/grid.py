"""The command `grid`; registered in `cli`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from secateurs.cli.options import (
    AsJson,
    Cache,
    Data,
    GroupBy,
    Model,
    Out,
    OwnLayer,
    OwnSeed,
    OwnSplit,
    ProgressMode,
    Quiet,
)
from secateurs.cli.session import session_of


def grid(
    model: Model,
    data: Data,
    out: Out,
    layer: OwnLayer = None,
    angles: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Degrees below which two units are one; above 180 less that they are opposite. "
            "[default: 7.5,10,12.5,15,17.5]",
        ),
    ] = None,
    stds: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Only units whose norm is so many deviations from the mean are looked at; 0 is "
            "every unit. [default: 1 to 5 in steps of 0.5]",
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(help="pairwise (remove, compensate) or published (the paper's program)."),
    ] = "pairwise",
    compensation: Annotated[
        str | None,
        typer.Option(help="drop, add, affine, least_squares or merge. [default: least_squares]"),
    ] = None,
    on: Annotated[
        str, typer.Option(help="Evaluate cells on val or test; choose none by its test accuracy.")
    ] = "val",
    split: OwnSplit = None,
    group_by: GroupBy = None,
    seed: OwnSeed = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda. [default: as the model was trained]")
    ] = None,
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Cut one layer at every angle and norm threshold; one pass over images and pairs for all.

    The paper's 5 x 9 cells by default. Writes grid.json, grid.csv and grid.html.
    """
    from secateurs.errors import InputError
    from secateurs.prune.layer_grid import PAPER_ANGLES, PAPER_STDS, GridOptions
    from secateurs.report.grid.page import write_grid_page
    from secateurs.study.pruning.grid_rows import grid_words
    from secateurs.study.pruning.saved_grid import GridPlan, grid_saved, parse_numbers

    if rule == "published" and compensation is not None:
        raise InputError(
            "compensation: the published rule changes incoming weights and has none; leave it out"
        )
    words: dict[str, Any] = {"rule": rule, "compensation": compensation or "least_squares"}
    options = GridOptions(
        angles_deg=PAPER_ANGLES if angles is None else parse_numbers(angles, "angles"),
        norm_stds=PAPER_STDS if stds is None else parse_numbers(stds, "stds"),
        **words,
    )
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    answer = grid_saved(
        model,
        data,
        GridPlan(options, layer=layer, on=on),
        out,
        changes={"split": split, "group_by": group_by, "seed": seed, "device": device},
        cache=session.cache,
        progress=session.progress,
    )
    page = write_grid_page(answer, out)
    session.answer(answer, f"{grid_words(answer)}\npage: {page}")
