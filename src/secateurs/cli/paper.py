"""The command `paper`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli.options.data import Data
from secateurs.cli.options.executors import ExecutionOptions
from secateurs.cli.options.network import Depths, Device, Precision, Weights
from secateurs.cli.options.output import Overwrite, SessionOptions, StudyOut
from secateurs.cli.options.panels import DATA, PRUNING, TRAINING, within
from secateurs.cli.options.training import PrefixOptions
from secateurs.cli.parsing.session import open_session
from secateurs.limits import LIMITS


def paper(
    context: typer.Context,
    *,
    data: Data,
    out: StudyOut = Path("studies/DATA-paper"),
    weights: Weights = "auto",
    depths: Depths = None,
    runs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Runs per depth, and from random weights.",
            callback=within(LIMITS["runs"]),
            rich_help_panel=TRAINING,
        ),
    ] = 5,
    epochs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Epochs per run, one step each.",
            callback=within(LIMITS["epochs"]),
            rich_help_panel=TRAINING,
        ),
    ] = 50,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Regular expression for the film in a file name. [default: that of SFEW]",
            rich_help_panel=DATA,
        ),
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            help="Search learning rate and epochs too, as the paper did.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
    first_epoch_dropout: Annotated[
        bool,
        typer.Option(
            help="Dropout as in the original program, in the first epoch only.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
    choose_on_test: Annotated[
        bool,
        typer.Option(
            help="Select the best network on test images, as the paper did.",
            rich_help_panel=TRAINING,
        ),
    ] = True,
    noisy_activations: Annotated[
        bool,
        typer.Option(
            help="New augmented views and dropout for the activations of each cell.",
            rich_help_panel=PRUNING,
        ),
    ] = True,
    precision: Precision = None,
    device: Device = "auto",
    prefixes: PrefixOptions,
    execution: ExecutionOptions,
    session_options: SessionOptions,
    overwrite: Overwrite = False,
) -> None:
    """Repeat the experiments of the original paper, each published number beside yours.

    Then run them with films kept apart, selection on validation, and refitted weights. The same
    command again resumes. Writes paper.json and paper.html.
    """
    from secateurs.files import read_json
    from secateurs.report.paper.page import paper_words, write_paper_page
    from secateurs.report.search.page import write_search_page
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import load_results
    from secateurs.study.paper.protocol import PaperPlan
    from secateurs.study.paper.run import run_paper
    from secateurs.study.setup.config import parse_depths

    plan = PaperPlan(
        depths=() if depths is None else parse_depths(depths),
        runs=runs,
        epochs=epochs,
        group_by=group_by,
        weights=weights,
        device=device,
        precision=precision or "auto",
        first_epoch_dropout=first_epoch_dropout,
        choose_on_test=choose_on_test,
        noisy_activations=noisy_activations,
        search=search,
    )
    session = open_session(session_options, context)
    crew = execution.open(cache=session.cache, progress=session.progress)
    with session.running(out) as stop, crew as opened:
        answer = run_paper(
            data,
            plan,
            out,
            cache=session.cache,
            overwrite=overwrite,
            prefix_cache=prefixes.open(out),
            executor=opened,
            stop=stop,
            progress=session.progress,
        )
    answer = session.keep(out, "paper.json", answer)
    page = write_paper_page(answer, out, data=data)
    if answer["search"]:
        folder = out / answer["files"]["search"]
        write_search_page(read_json(folder / "search.json"), folder, data=data)
    if answer["beyond"]["apart"]:
        folder = out / answer["files"]["apart"]
        write_report(load_results(folder), folder)
    session.answer(answer, f"{paper_words(answer)}\npage: {page}")
