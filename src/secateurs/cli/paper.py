"""The command `paper`; registered in `cli`."""

from __future__ import annotations

from typing import Annotated

import typer

from secateurs.cli.options import (
    AsJson,
    Cache,
    CacheBudget,
    CacheIn,
    Data,
    Depths,
    Device,
    Out,
    Precision,
    ProgressMode,
    Quiet,
    Weights,
    within,
)
from secateurs.cli.session import session_of
from secateurs.limits import LIMITS
from secateurs.stopping import stop_on_interrupt


def paper(
    data: Data,
    out: Out,
    weights: Weights = "auto",
    depths: Depths = None,
    runs: Annotated[
        int,
        typer.Option(help="Runs of each depth, and from scratch.", callback=within(LIMITS["runs"])),
    ] = 5,
    epochs: Annotated[
        int,
        typer.Option(help="Epochs of a run, one step each.", callback=within(LIMITS["epochs"])),
    ] = 50,
    group_by: Annotated[
        str | None,
        typer.Option(help="Regular expression for the film in a file name. [default: SFEW's]"),
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Search learning rate and epochs too, as the paper did.")
    ] = True,
    first_epoch_dropout: Annotated[
        bool, typer.Option(help="The program's dropout, active in the first epoch alone.")
    ] = True,
    choose_on_test: Annotated[
        bool, typer.Option(help="Choose the best network on test, as the paper did.")
    ] = True,
    noisy_activations: Annotated[
        bool, typer.Option(help="New views and dropout for each cell's activations.")
    ] = True,
    precision: Precision = None,
    device: Device = "auto",
    cache_budget: CacheBudget = 2.0,
    cache_in: CacheIn = "memory",
    cache: Cache = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    progress: ProgressMode = "auto",
) -> None:
    """Run the founding paper's experiments on DATA, each published number beside yours.

    Then what the paper would have found: films kept apart, chosen on validation, refitted weights.
    Run again with the same words, it does only what is missing. Writes paper.json and paper.html.
    """
    from secateurs.files import read_json
    from secateurs.report.paper.page import paper_words, write_paper_page
    from secateurs.report.search.page import write_search_page
    from secateurs.report.study.page import write_report
    from secateurs.report.study.schema import load_results
    from secateurs.study.paper.protocol import PaperPlan
    from secateurs.study.paper.run import run_paper
    from secateurs.study.setup.config import parse_depths
    from secateurs.study.trials.trial import prefix_cache

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
    session = session_of(cache, as_json=as_json, quiet=quiet, progress=progress)
    with stop_on_interrupt() as stop:
        answer = run_paper(
            data,
            plan,
            out,
            cache=session.cache,
            prefix_cache=prefix_cache(out, cache_budget, cache_in),
            stop=stop,
            progress=session.progress,
        )
    page = write_paper_page(answer, out)
    if answer["search"]:
        folder = out / answer["files"]["search"]
        write_search_page(read_json(folder / "search.json"), folder)
    if answer["beyond"]["apart"]:
        folder = out / answer["files"]["apart"]
        write_report(load_results(folder), folder)
    session.answer(answer, f"{paper_words(answer)}\npage: {page}")
