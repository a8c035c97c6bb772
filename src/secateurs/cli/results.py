"""The command `results`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.output import Config, FileOut
from secateurs.cli.options.panels import OUTPUT, suggest
from secateurs.paths import existing_directory


def results(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Output directory of a study, sweep, search, grid or run of the paper.",
            callback=existing_directory,
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="markdown, csv or parquet (with --out).",
            rich_help_panel=OUTPUT,
            autocompletion=suggest("markdown", "csv", "parquet"),
        ),
    ] = "markdown",
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a study: networks (one row per network), probe, trials, depths or "
            "classes; with --layers trials (one row per trial), depths, epochs, networks, classes, "
            "costs, latency or units (the ledger); of a search: trials, epochs or cells; of a "
            "grid: cells or angles; of the paper: published, trials or cells. [default: the first "
            "of them]",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: FileOut = None,
    config: Config = None,
) -> None:
    """Print a table of the results in a directory: one row per trial, or another table.

    Works for an unfinished study as well, with the trials so far. Fractions are in 0..1. Of a study
    a screen gets the columns that fit; --table, --out and the other formats have all of them.
    """
    from secateurs.report.common.table_files import write_table
    from secateurs.report.frontier.result_tables import frontier_tables, short_rows
    from secateurs.report.frontier.schema import load_frontier
    from secateurs.report.study.result_tables import choose_table, is_unfinished, result_tables
    from secateurs.shape import made_of

    path = directory / "results.json"
    with made_of(path):
        frontier = load_frontier(directory)
        found = None if frontier is None else frontier_tables(frontier, path)
        short = None if frontier is None else short_rows(frontier)
    if short is not None and kind == "markdown" and table is None and out is None:
        print(write_table(short, kind, None), end="")
        return
    rows = choose_table(found or result_tables(directory), table, directory)
    if is_unfinished(directory):
        print(f"{directory}: not finished; these are the trials so far", file=sys.stderr)
    text = write_table(rows, kind, out)
    print(text or out, end="" if text else "\n")
