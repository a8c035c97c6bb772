"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.output import Config
from secateurs.cli.options.panels import OUTPUT
from secateurs.paths import existing_directory, output_file


def report(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Directory of a study, or of a run of the paper.",
            callback=existing_directory,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The page to write, for example --out page.html. [default: DIR/report.html]",
            callback=output_file,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Write the report and the model card of a study again from its results.json.

    For a run of the paper, write its page again from its paper.json.
    """
    from secateurs.shape import made_of

    if out is None and (directory / "paper.json").exists():
        from secateurs.report.paper.page import load_paper, write_paper_page

        with made_of(directory / "paper.json"):
            page = write_paper_page(load_paper(directory), directory)
        print(page)
        return
    from secateurs.report.frontier.card import write_frontier_card
    from secateurs.report.frontier.page import write_frontier_report
    from secateurs.report.frontier.schema import load_frontier

    frontier = load_frontier(directory)
    if frontier is not None:
        with made_of(directory / "results.json"):
            write_frontier_card(frontier, directory)
            print(write_frontier_report(frontier, directory, out))
        return
    from secateurs.report.study.card import write_card
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import load_results

    results = load_results(directory)
    with made_of(directory / "results.json"):
        if results["pruned"]:
            write_card(results, directory)
        page = write_report(results, directory, out)
    print(page)
