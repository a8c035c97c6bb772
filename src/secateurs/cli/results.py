"""The command `results`; registered in `cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateurs.paths import existing_directory, output_file


def results(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="The --out of a study, sweep, search, grid or paper.",
            callback=existing_directory,
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", help="markdown, csv or parquet (with --out).")
    ] = "markdown",
    table: Annotated[
        str | None,
        typer.Option(
            help="Of a study: trials (one row a trial), depths, epochs, networks, classes, costs, "
            "latency or units (the ledger); of a search trials, epochs or cells; of a grid cells "
            "or angles; of the paper published, trials or cells. [default: the first of them]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="[default: standard output]", callback=output_file
        ),
    ] = None,
) -> None:
    """Print what a directory holds as a table: one row a trial, or another of its tables.

    Works on a study that has not ended as well, with the trials done so far. Fractions are in 0..1.
    """
    from secateurs.report.common.table_files import write_table
    from secateurs.report.study.result_tables import choose_table, is_unfinished, result_tables

    rows = choose_table(result_tables(directory), table, directory)
    if is_unfinished(directory):
        print(f"{directory}: not finished; these are the trials done so far", file=sys.stderr)
    text = write_table(rows, format, out)
    print(text or out, end="" if text else "\n")
